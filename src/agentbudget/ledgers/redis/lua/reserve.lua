#!lua
-- ARGV[4] id, [5] lease in seconds, [6] fingerprint, then key, amount, limit ("-1": none) of each posting.
-- Returns a state, "C" for other terms, or per account without room its place (from 1) and balance.
local id, terms = ARGV[4], ARGV[6]

-- The usual case: nothing is to be forgotten yet, the id is new, every account is known and has room. What is due is
-- left to the next reading, refusal or forgetting: expired or not, it counts.
local usual = sequence + 1 < tonumber(meta[3] or '0') and not call('GET', holds .. id)
if usual then
  local rows, lines, n = {}, {}, 0
  for i = 7, #ARGV, 3 do
    local row = call('HMGET', prefix .. ARGV[i], 'id', 'reserved', 'settled', 'presumed', 'limit', 'pin', 'granted')
    local limit = row[6] or ARGV[i + 2]
    local top = limit == '-1' and MAX or math.min(limit + (row[7] or 0), MAX)
    if not row[1] or (row[2] or 0) + (row[3] or 0) + (row[4] or 0) + ARGV[i + 1] > top then
      usual = false
      break
    end
    n = n + 1
    rows[n], lines[n] = row[5], row[1] .. ':' .. ARGV[i + 1]
  end
  if usual then
    call('ZCARD', leases)
    local packed, text = table.concat(lines, ','), format('%.0f', sequence + 1)
    local deadline = format('%.17g', now + ARGV[5])
    call('XADD', journal, text, '', 'reserve ' .. at .. ' ' .. packed .. ' ' .. id)
    for k = 1, n do
      local i = 4 + 3 * k
      if ARGV[i + 1] ~= '0' then call('HINCRBY', prefix .. ARGV[i], 'reserved', ARGV[i + 1]) end
      if (rows[k] or '-1') ~= ARGV[i + 2] then call('HSET', prefix .. ARGV[i], 'limit', ARGV[i + 2]) end
    end
    call('ZADD', leases, deadline, id)
    call('SET', holds .. id, 'L ' .. deadline .. ' ' .. terms .. ' - ' .. text .. ' ' .. packed)
    call('HSET', KEYS[1], 'sequence', text, 'time', at)
    return 'L'
  end
end

-- @common
local function judge()
  local rows, short = {}, {}
  for i = 7, #ARGV, 3 do
    local row = call('HMGET', prefix .. ARGV[i], 'id', 'reserved', 'settled', 'presumed', 'limit', 'pin', 'granted')
    local committed = (row[2] or 0) + (row[3] or 0) + (row[4] or 0)
    if committed + ARGV[i + 1] > ceiling(row[6] or ARGV[i + 2], row[7]) then
      short[#short + 1] = {(i - 4) / 3, balance(ARGV[i], ARGV[i + 2])}
    end
    rows[(i - 4) / 3] = row
  end
  return rows, short
end

sweep(false)
local hold = look(id)
if hold then
  if hold.state ~= 'T' and hold.terms ~= terms then return done('C') end
  return done(hold.state)
end
local rows, short = judge()
if #short > 0 and sweep(true) > 0 then rows, short = judge() end
if #short > 0 then return done(short) end
for _, row in ipairs(rows) do
  if not row[1] then check_open() end
end

local lines = {}
for n, row in ipairs(rows) do
  local i = 4 + 3 * n
  row[1] = row[1] or open(ARGV[i])
  lines[n] = row[1] .. ':' .. ARGV[i + 1]
end
local packed = table.concat(lines, ',')
local entries = entry('reserve', id, packed)
for n, row in ipairs(rows) do
  local i = 4 + 3 * n
  if ARGV[i + 1] ~= '0' then call('HINCRBY', prefix .. ARGV[i], 'reserved', ARGV[i + 1]) end
  if (row[5] or '-1') ~= ARGV[i + 2] then call('HSET', prefix .. ARGV[i], 'limit', ARGV[i + 2]) end
end
local deadline = format('%.17g', now + ARGV[5])
call('ZADD', leases, deadline, id)
save(id, 'L', deadline, terms, '-', entries, packed)

-- Now and then, forget what was resolved before the time that is retained, oldest entries first. What forgotten entries
-- had added goes into the bases of their accounts.
if sequence >= tonumber(meta[3] or '0') then
  local alerted = call('EXISTS', base .. 'alerts') == 1
  local idle = base .. 'idle'
  local retained, tasks_retained = match(ARGV[3], '^(.*):(.*)$')
  -- The key of account *id* with its row, where nothing of it is in the journal but what was granted to it and pinned.
  local function complete(id)
    local key = call('HGET', names, id)
    if not key then return nil end
    local row = call('HMGET', prefix .. key, 'id', 'pinned', 'reserved', 'settled', 'settled0', 'presumed', 'presumed0')
    if (row[3] or '0') == '0' and (row[4] or '0') == (row[5] or '0') and (row[6] or '0') == (row[7] or '0') then
      return key, row
    end
  end
  -- As `ledgers.keys.is_passing`: an account of a task, or of a minute or an hour.
  local function is_passing(key)
    return match('/' .. match(key, '^[^|]*'), '/task:') or match(key, '|%d%d%d%d%-%d%d%-%d%dT[^|]*$')
  end
  local touched = {}
  local function forget(id, hold)
    for row, amount, over in gmatch(hold.lines, '(%d+):(%d+):?(%d*)') do
      local key = call('HGET', names, row)
      if key and is_passing(key) then touched[row] = hold.when end
      if key and hold.state == 'S' then
        call('HINCRBY', prefix .. key, 'settled0', amount)
        if over ~= '0' then call('HINCRBY', prefix .. key, 'overrun0', over) end
      elseif key and hold.state == 'X' then
        call('HINCRBY', prefix .. key, 'presumed0', amount)
      end
    end
    for one in gmatch(hold.entries, '%d+') do call('XDEL', journal, one) end
    call('DEL', holds .. id)
    if alerted then call('HDEL', base .. 'alerts', 'c' .. id) end
  end

  local known = call('HMGET', KEYS[1], 'read_until', 'folded')
  local folded, forgotten = known[2] or '0', false
  -- Look at *count* entries, until one is to be retained. Returns whether all were not.
  local function fold(count)
    local page = call('XRANGE', journal, '(' .. folded, '+', 'COUNT', count)
    for _, one in ipairs(page) do
      local verb, when, of = match(one[2][2], '^(%l+) (%S+) %S+ (.*)$')
      if tonumber(when) > now - retained then return false end
      local old = (verb == 'settle' or verb == 'release' or verb == 'expire') and load(of)
      if old and old.state ~= 'L' and old.when == when then
        forget(of, old)
        forgotten = true
      end
      folded = match(one[1], '^%d+')
    end
    return true
  end
  -- Usually the very first is to be retained, and 64 would be read for nothing.
  if tonumber(known[1] or '0') <= now and fold(1) then fold(63) end
  for row, when in pairs(touched) do
    if complete(row) then call('ZADD', idle, when, row) end
  end
  if tonumber(known[1] or '0') <= now then
    for _, one in ipairs(call('ZRANGEBYSCORE', idle, '-inf', whole(now - tasks_retained), 'LIMIT', 0, 32)) do
      local key, row = complete(one)
      if key then
        drop(key, row)
        forgotten = true
      else
        call('ZREM', idle, one)
      end
    end
  end
  call('HSET', KEYS[1], 'fold_at', whole(sequence + 32), 'folded', folded)
  if forgotten then call('HINCRBY', KEYS[1], 'epoch', 1) end
end
return done('L')
