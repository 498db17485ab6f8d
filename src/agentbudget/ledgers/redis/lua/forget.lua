-- What is forgotten: accounts that nobody needs, and reservations that were resolved before the time that is retained.

-- What was read before is read anew: what follows is written at once.
local function read_anew()
  flush()
  rows, fetched = {}, {}
end

-- Forget account *key* with its grants and its limit.
local function drop(key, id)
  for _, grant in ipairs(call('LRANGE', grants .. ':' .. id, 0, -1)) do
    call('XDEL', journal, match(call('HGET', grants, grant), '(%d+)$'))
    call('HDEL', grants, grant)
  end
  call('DEL', grants .. ':' .. id)
  local pinned = call('HGET', rare(id), 'pinned')
  if pinned then call('XDEL', journal, pinned, pinned + 1) end
  call('HDEL', alerts, 'r' .. id)
  call('ZREM', idle, id)
  call('DEL', accounts .. key, rare(id))
  call('HDEL', names, id)
end

-- The key of account *id*, where nothing of it is in the journal but what was granted to it and pinned.
local function complete(id)
  local key = call('HGET', names, id)
  local readable, row = pcall(read, key)
  if not key or not readable then return nil end
  local told = call('HMGET', rare(id), 'settled0', 'presumed0')
  local resting = row[A_RESERVED] == 0 and not (row[A_CARRIED] and is_large(row))
  if not resting or row[A_SETTLED] ~= tonumber(told[1] or 0) or row[A_PRESUMED] ~= tonumber(told[2] or 0) then
    return nil
  end
  return key
end

-- As `ledgers.keys.is_passing`: an account of a task, or of a minute or an hour.
local function is_passing(key)
  return match('/' .. match(key, '^[^|]*'), '/task:') or match(key, '|%d%d%d%d%-%d%d%-%d%dT[^|]*$')
end

-- Forget the resolved reservation *id*. What its entries had added goes into the bases of its accounts; those that may
-- be collected are put into *passed*.
local function forget(id, hold, name, alerted, passed)
  local column = hold[H_STATE] == 'S' and 'settled0' or hold[H_STATE] == 'X' and 'presumed0'
  local lines, overruns = told_by(hold[H_STATE] == 'S' and hold[#hold] or hold[H_FIRST])
  overruns = overruns ~= 0 and overruns or {}
  for n = 1, #lines, 2 do
    local key = call('HGET', names, lines[n])
    if key and is_passing(key) then passed[lines[n]] = hold[H_WHEN] end
    if key and column and lines[n + 1] ~= 0 then call('HINCRBY', rare(lines[n]), column, lines[n + 1]) end
  end
  for n = 1, #overruns, 2 do
    if call('HEXISTS', names, overruns[n]) == 1 then call('HINCRBY', rare(overruns[n]), 'overrun0', overruns[n + 1]) end
  end
  call('XDEL', journal, unpack(hold, H_FIRST))
  call('DEL', name)
  fetched[name] = false
  if alerted then call('HDEL', alerts, 'c' .. id) end
end

-- Forget what is old and readable among the *count* entries after *folded*, until one is to be retained. Returns where
-- that ended, and whether all were read and anything was forgotten.
local function fold(count, folded, passed)
  local alerted, forgotten = call('EXISTS', alerts) == 1, false
  for _, one in ipairs(call('XRANGE', journal, '(' .. folded, '+', 'COUNT', count)) do
    local verb, when, of = unpacked(one[2][2])
    if when > now - ARGV[3] then return folded, false, forgotten end
    local readable, hold, name
    if verb == 'settle' or verb == 'release' or verb == 'expire' then readable, hold, name = pcall(look, of) end
    if readable and hold and hold[H_STATE] ~= 'L' and hold[H_WHEN] == when then
      forget(of, hold, name, alerted, passed)
      forgotten = true
    end
    folded = match(one[1], '^%d+')
  end
  return folded, true, forgotten
end

-- Collect accounts that were idle for long enough. Returns whether there were any.
local function collect_idle()
  local forgotten = false
  for _, id in ipairs(call('ZRANGEBYSCORE', idle, '-inf', now - ARGV[4], 'LIMIT', 0, 32)) do
    local key = complete(id)
    if key then
      drop(key, id)
      forgotten = true
    else
      call('ZREM', idle, id)
    end
  end
  return forgotten
end

-- Now and then, forget what is old, oldest entries first, faster than new ones come; nothing while somebody reads.
local function tidy()
  sweep()
  local told = call('HMGET', KEYS[1], 'read_until', 'folded')
  local folded, passed, all, forgotten, more = told[2] or '0', {}, false, false, false
  if tonumber(told[1] or '0') <= now then
    -- Usually the very first is to be retained, and the others would be read for nothing.
    folded, all, forgotten = fold(1, folded, passed)
    if all then
      folded, all, more = fold(128, folded, passed)
    end
    for id, when in pairs(passed) do
      if complete(id) then call('ZADD', idle, when, id) end
    end
    forgotten = collect_idle() or more or forgotten
  end
  flush()
  fold_at = sequence + 64
  call('SET', base .. 'clock', pack(sequence, now, fold_at))
  call('HSET', KEYS[1], 'folded', folded)
  if forgotten then call('HINCRBY', KEYS[1], 'epoch', 1) end
end
