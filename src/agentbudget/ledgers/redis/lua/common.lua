-- What verbs share beyond their head. To make these functions takes the server about as long as four calls, so the usual
-- reserve and settle stand before them and do without.
local function whole(number)
  return format('%.0f', number)
end

-- The most that may be committed.
local function ceiling(limit, granted)
  if limit == '-1' then return MAX end
  local top = limit + (granted or 0)
  return top < MAX and top or MAX
end

-- The reservation as it was last saved. The leases are counted so that a key of another type is found before anything
-- is written.
local function load(id)
  local packed = call('GET', holds .. id)
  if not packed then return nil end
  call('ZCARD', leases)
  local state, when, terms, spent, entries, lines = match(packed, '^(%u) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  if not state then error('a reservation of the ledger is not readable') end
  return {state = state, when = when, terms = terms, spent = spent, entries = entries, lines = lines}
end

local function save(id, state, when, terms, spent, entries, lines)
  if lines == '' then lines = '-' end
  call('SET', holds .. id, state .. ' ' .. when .. ' ' .. terms .. ' ' .. spent .. ' ' .. entries .. ' ' .. lines)
end

local function entry(verb, id, lines)
  sequence = sequence + 1
  local text = whole(sequence)
  call('XADD', journal, text, '', verb .. ' ' .. at .. ' ' .. lines .. ' ' .. id)
  return text
end

-- A new account. The lengths are read so that a key of another type is found before anything is written.
local function check_open()
  call('HLEN', names)
  call('XLEN', journal)
end

local function open(key)
  local id = whole(call('HINCRBY', KEYS[1], 'rows', 1))
  call('HSET', names, id, key)
  call('HSET', prefix .. key, 'id', id)
  return id
end

-- The keys of the accounts in *lines* that still exist: pairs of key and amount.
local function rows_of(lines)
  local rows = {}
  for id, amount in gmatch(lines, '(%d+):(%d+)') do
    local key = call('HGET', names, id)
    if key and amount ~= '0' then rows[#rows + 1] = {prefix .. key, amount} end
  end
  return rows
end

local function expire(id, hold)
  local rows = rows_of(hold.lines)
  local charged = ARGV[2] == 'X'
  local entries = hold.entries .. ',' .. entry('expire', id, charged and hold.lines or '-')
  for _, row in ipairs(rows) do
    call('HINCRBY', row[1], 'reserved', '-' .. row[2])
    if charged then call('HINCRBY', row[1], 'presumed', row[2]) end
  end
  call('ZREM', leases, id)
  save(id, ARGV[2], at, hold.terms, '-', entries, hold.lines)
end

-- Expire what is due: a batch, or *everything*. Returns how many.
local function sweep(everything)
  local count = 0
  repeat
    local due = call('ZRANGEBYSCORE', leases, '-inf', at, 'LIMIT', 0, 64)
    for _, id in ipairs(due) do
      local hold = load(id)
      if hold and hold.state == 'L' then expire(id, hold) else call('ZREM', leases, id) end
    end
    count = count + #due
  until not everything or #due == 0
  return count
end

-- The reservation as it is now, whether or not a sweep has come to it.
local function look(id)
  local hold = load(id)
  if hold and hold.state == 'L' and tonumber(hold.when) <= now then
    expire(id, hold)
    return load(id)
  end
  return hold
end

-- Forget an account with its grants and its limit. *row*: id and sequence of the pin.
local function drop(key, row)
  local grants = base .. 'grants'
  for _, grant in ipairs(call('LRANGE', grants .. ':' .. row[1], 0, -1)) do
    call('XDEL', journal, match(call('HGET', grants, grant), '(%d+)$'))
    call('HDEL', grants, grant)
  end
  call('DEL', grants .. ':' .. row[1])
  if row[2] then call('XDEL', journal, row[2], whole(tonumber(row[2]) + 1)) end
  call('HDEL', base .. 'alerts', 'r' .. row[1])
  call('ZREM', base .. 'idle', row[1])
  call('DEL', prefix .. key)
  call('HDEL', names, row[1])
end

local function done(answer)
  if sequence ~= started then call('HSET', KEYS[1], 'sequence', whole(sequence), 'time', at) end
  return answer
end

-- limit, settled, reserved, presumed, overrun, cut; *declared* is what a posting declares, where one is judged.
local function balance(key, declared)
  local row = call('HMGET', prefix .. key, 'limit', 'pin', 'granted', 'settled', 'reserved', 'presumed', 'overrun', 'cut')
  local limit = row[2] or declared or row[1] or '-1'
  return {limit == '-1' and limit or whole(ceiling(limit, row[3])), row[4] or '0', row[5] or '0', row[6] or '0', row[7] or '0', row[8] or '0'}
end
