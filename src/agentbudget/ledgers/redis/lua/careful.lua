local alerts, grants, idle = base .. 'alerts', base .. 'grants', base .. 'idle'
local match, gmatch, format = string.match, string.gmatch, string.format

local function whole(number)
  return format('%.0f', number)
end

local function rare(id)
  return base .. 'rare:' .. whole(id)
end

-- The most that may be committed.
local function ceiling(limit, granted)
  if limit < 0 then return N_MAX end
  return math.min(limit + granted, N_MAX)
end

-- Whether what is committed is larger than any limit.
local function is_large(row)
  return row[A_CARRIED] + row[A_CARRIED + 1] + row[A_CARRIED + 2] > 0
end

-- limit, settled, reserved, presumed, overrun, cut; what is larger than N_MAX is a pair of how often 2^53 is in it and
-- the rest. *declared* is what a posting declares, where one is judged.
local function balance(key, declared)
  local row = rows[key] or read(key)
  local limit = row[A_PIN] == N_NO_PIN and (declared or row[A_LIMIT]) or row[A_PIN]
  local told = {limit < 0 and -1 or ceiling(limit, row[A_GRANTED])}
  for column = A_SETTLED, A_OVERRUN do
    local carries = row[column - A_SETTLED + A_CARRIED] or 0
    told[#told + 1] = carries == 0 and row[column] or {carries, row[column]}
  end
  told[#told + 1] = row[A_PIN] ~= N_NO_PIN and call('HGET', rare(row[A_ID]), 'cut') or 0
  return told
end

local function refuse(args, short)
  local told = {}
  for n, place in ipairs(short) do told[n] = {place, balance(args[6][2 * place - 1], args[5][place])} end
  return told
end

-- What the entry *sequence* of the journal says: lines, overruns or 0.
local function told_by(sequence)
  flush()
  local entry = call('XRANGE', journal, sequence, sequence)[1]
  local _, _, _, lines, overruns = unpacked(entry[2][2])
  return lines, overruns
end

-- The keys and amounts of *lines* whose accounts still exist.
local function held_in(lines)
  local found = {}
  for n = 1, #lines, 2 do
    local key = lines[n + 1] ~= 0 and call('HGET', names, lines[n])
    if key then
      if not rows[key] then read(key) end
      found[#found + 1] = {key, lines[n + 1]}
    end
  end
  return found
end

-- End the live reservation *id* in *state*; what it held is taken from its accounts and, if *charged*, presumed spent.
local function finish(verb, id, hold, name, state, charged)
  local lines = told_by(hold[H_FIRST])
  local held = held_in(lines)
  hold[#hold + 1] = enter(verb, id, charged and lines or {})
  hold[H_STATE], hold[H_WHEN] = state, now
  save(name, hold)
  ended[#ended + 1] = id
  for _, line in ipairs(held) do
    local row = rows[line[1]]
    add(row, A_RESERVED, -line[2])
    if charged then add(row, A_PRESUMED, line[2]) end
    touched[line[1]] = row
  end
end

-- The reservation *id* as it is now, whether or not a sweep has come to it, and the name of its key.
local function look(id)
  local name = holds .. id
  local packed = fetched[name]
  if packed == nil then packed = call('GET', name) end
  local hold = packed and {unpacked(packed)}
  if packed and not hold[H_FIRST] then error('a reservation of the ledger is not readable') end
  fetched[name] = packed
  if hold and hold[H_STATE] == 'L' and hold[H_WHEN] <= now then
    finish('expire', id, hold, name, ARGV[2], ARGV[2] == 'X')
  end
  return hold, name
end

-- Expire up to 64 that are due. Returns how many there were.
local function sweep()
  flush()
  local due = call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 64)
  for _, id in ipairs(due) do
    local hold = look(id)
    if not hold or hold[H_STATE] ~= 'L' then ended[#ended + 1] = id end
  end
  flush()
  return #due
end

-- Expire all that is due. Returns whether anything was. No lease that is made now ends now, so once is enough.
local swept = false
local function sweep_all()
  if swept then return false end
  local any = false
  while sweep() > 0 do any = true end
  swept = true
  return any
end
