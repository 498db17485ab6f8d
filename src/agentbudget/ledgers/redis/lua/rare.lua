-- The other verbs.

-- id. Returns the state that it is now in.
local function release(args)
  local id = args[2]
  local hold, name = look(id)
  if hold and hold[H_STATE] ~= 'L' then return hold[H_STATE] end
  if hold then
    finish('release', id, hold, name, 'R', false)
  else
    save(name, {'T', now, '', '', enter('release', id, {})})
  end
  return 'R'
end

-- id, lease. Returns the state found; nothing for an unknown id.
local function renew(args)
  local id = args[2]
  local hold, name = look(id)
  if hold and hold[H_STATE] == 'L' then
    hold[H_WHEN] = now + args[3]
    begun[#begun + 1] = hold[H_WHEN]
    begun[#begun + 1] = id
    save(name, hold)
  end
  return hold and hold[H_STATE]
end

-- account key.
local function balance_of(args)
  sweep_all()
  return balance(args[2])
end

-- account key, limit (-1: none). Returns the balance. The cut may be larger than N_MAX: it is summed up by HINCRBY,
-- which would not take the -0 that -ceiling() can be.
local function set_limit(args)
  sweep_all()
  flush()
  local key, limit = args[2], args[3]
  local row = rows[key] or read(key)
  open({key})
  local id = row[A_ID]
  local name = rare(id)
  local pinned = call('HGET', name, 'pinned')
  local sequence_of_pin = enter('limit', '', {id, limit})
  call('HSET', name, 'pinned', sequence_of_pin, 'cut', 0 - ceiling(limit, row[A_GRANTED]))
  for column = A_SETTLED, A_OVERRUN do
    local sign = column == A_OVERRUN and '-' or ''
    for _, part in ipairs({row[column], (row[column - A_SETTLED + A_CARRIED] or 0) * N_BIG}) do
      if part ~= 0 then call('HINCRBY', name, 'cut', sign .. whole(part)) end
    end
  end
  local cut = call('HGET', name, 'cut')
  if string.sub(cut, 1, 1) == '-' then
    cut = '0'
    call('HSET', name, 'cut', cut)
  end
  enter('cut', '', {id, cut})
  if pinned then call('XDEL', journal, pinned, pinned + 1) end
  row[A_PIN], touched[key] = limit, row
  return balance(key)
end

-- grant id, account key, amount. Returns the balance, "C" for other terms, "V" where the sum of all grants would be too
-- large.
local function top_up(args)
  sweep_all()
  local id, key, amount = args[2], args[3], args[4]
  local row = rows[key] or read(key)
  local made = call('HGET', grants, id)
  if made then
    local granted, account = match(made, '^(%d+) (%d+) ')
    if tonumber(granted) ~= amount or tonumber(account) ~= row[A_ID] then return 'C' end
    return balance(key)
  end
  if row[A_GRANTED] + amount > N_MAX then return 'V' end
  open({key})
  local account = row[A_ID]
  local entered = enter('grant', id, {account, amount})
  call('HSET', grants, id, table.concat({whole(amount), whole(account), whole(entered)}, ' '))
  call('RPUSH', grants .. ':' .. whole(account), id)
  row[A_GRANTED], touched[key] = row[A_GRANTED] + amount, row
  return balance(key)
end

-- account keys. Returns how many were dropped.
local function collect(args)
  sweep_all()
  flush()
  local dropped = 0
  for _, key in ipairs(args[2]) do
    local row = rows[key] or read(key)
    if row[A_ID] > 0 and row[A_RESERVED] == 0 and (row[A_CARRIED + 1] or 0) == 0 then
      drop(key, whole(row[A_ID]))
      dropped = dropped + 1
    end
  end
  read_anew()
  return dropped
end

-- the last sequence that was read ("0": none yet), how many entries. Returns the epoch, that many entries, and, with
-- the last of them, every account: id, key, as it is packed, and its rare columns. Nothing is forgotten for a minute,
-- so that the pages of one reading fit together; where a reading takes longer, another epoch tells.
local function read_all(args)
  sweep_all()
  flush()
  local last, count = args[2], args[3]
  local page, found = {}, {}
  if count > 0 then
    call('HSET', KEYS[1], 'read_until', now + 60000000)
    page = call('XRANGE', journal, '(' .. last, '+', 'COUNT', count)
  end
  if #page < count or count == 0 then
    local all = call('HGETALL', names)
    for i = 1, #all, 2 do
      local more = call('HMGET', rare(all[i]), 'cut', 'settled0', 'presumed0', 'overrun0')
      found[#found + 1] = {all[i], all[i + 1], call('GET', accounts .. all[i + 1]), more}
    end
  end
  return {call('HGET', KEYS[1], 'epoch') or '0', page, found}
end

-- schema version, what expiry does. Returns what the ledger was made with; made now where there is none. The lengths
-- are read so that a foreign key of another type is found here.
local function open_ledger(args)
  call('HLEN', names)
  call('HLEN', grants)
  call('HLEN', alerts)
  call('ZCARD', idle)
  call('HSETNX', KEYS[1], 'schema', args[2])
  call('HSETNX', KEYS[1], 'on_expire', args[3])
  return call('HMGET', KEYS[1], 'schema', 'on_expire')
end

careful = {reserve = reserve, settle = settle, release = release, renew = renew, balance = balance_of,
  set_limit = set_limit, top_up = top_up, collect = collect, read = read_all, open = open_ledger, tidy = tidy}
