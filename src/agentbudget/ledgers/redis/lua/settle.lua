#!lua flags=allow-oom
-- ARGV[4] id, [5] fingerprint of what was reserved, [6] of what was spent, [7] alert thresholds in basis points by the
-- number of the charge ("1:5000,8000 3:10000", or nothing), then key, reserved, actual of each charge.
-- Returns "settled", "late", "lost", "duplicate" or "C" for other terms; a pair of that and the lines "key threshold
-- limit settled at" where thresholds were reached.
local id, terms, spent, watched = ARGV[4], ARGV[5], ARGV[6], ARGV[7]

-- The usual case: the reservation is live, its accounts are all there and small enough for exact sums.
local packed = call('GET', holds .. id)
local state, when, of, _, entries = match(packed or '', '^(%u) (%S+) (%S+) (%S+) (%S+) (%S+)$')
if state == 'L' and tonumber(when) > now and of == terms and watched == '' then
  call('ZCARD', leases)
  local usual, rows, lines, kept, n = true, {}, {}, {}, 0
  for i = 8, #ARGV, 3 do
    local row = call('HMGET', prefix .. ARGV[i], 'id', 'reserved', 'settled', 'overrun')
    local over = ARGV[i + 2] - ARGV[i + 1]
    local reserved, settled = (row[2] or 0) - ARGV[i + 1], (row[3] or 0) + ARGV[i + 2]
    local overrun = over > 0 and (row[4] or 0) + over or 0
    if not row[1] or settled > MAX or reserved < 0 or reserved > MAX then
      usual = false
      break
    end
    n = n + 1
    rows[n] = {reserved, settled, overrun}
    lines[n] = row[1] .. ':' .. ARGV[i + 2]
    kept[n] = lines[n] .. (over > 0 and format(':%.0f', over) or ':0')
  end
  if usual then
    local text = format('%.0f', sequence + 1)
    call('XADD', journal, text, '', 'settle ' .. at .. ' ' .. (n > 0 and table.concat(lines, ',') or '-') .. ' ' .. id)
    for k, row in ipairs(rows) do
      local key = prefix .. ARGV[5 + 3 * k]
      if row[3] > 0 then
        call('HSET', key, 'reserved', row[1], 'settled', row[2], 'overrun', row[3])
      else
        call('HSET', key, 'reserved', row[1], 'settled', row[2])
      end
    end
    call('ZREM', leases, id)
    call('SET', holds .. id, 'S ' .. at .. ' ' .. terms .. ' ' .. spent .. ' ' .. entries .. ',' .. text .. ' '
      .. (n > 0 and table.concat(kept, ',') or '-'))
    call('HSET', KEYS[1], 'sequence', text, 'time', at)
    return 'settled'
  end
end

-- @common
local alerts = base .. 'alerts'
local hold = look(id)
state = hold and hold.state
if hold and state ~= 'T' then
  if hold.terms ~= terms then return done('C') end
  if state == 'S' and hold.spent ~= spent then return done('C') end
  if state == 'S' then
    local known = call('HGET', alerts, 'c' .. id)
    return done(known and {'duplicate', known} or 'duplicate')
  end
end
if watched ~= '' then call('HLEN', alerts) end
local mine = hold and state ~= 'T' and ',' .. hold.lines

local column = state == 'L' and 'reserved' or state == 'X' and 'presumed' or nil
local charges = {}
for i = 8, #ARGV, 3 do
  local row = call('HMGET', prefix .. ARGV[i], 'id', 'settled', column or 'reserved')
  if (row[2] or 0) + (row[3] or 0) > 4e18 then error('an account of the ledger is full') end
  if not row[1] then check_open() end
  -- An account that the reservation held may have been collected since: what it held went with it.
  local gone = mine and ARGV[i + 1] ~= '0' and not (row[1] and string.find(mine, ',' .. row[1] .. ':', 1, true))
  if not gone then charges[#charges + 1] = {ARGV[i], ARGV[i + 1], ARGV[i + 2], row[1], before = row[2] or '0', place = (i - 5) / 3} end
end

local lines, kept = {}, {}
for n, charge in ipairs(charges) do
  local over = charge[3] - (column and charge[2] or 0)
  charge[4] = charge[4] or open(charge[1])
  charge[5] = over > 0 and whole(over) or '0'
  lines[n] = charge[4] .. ':' .. charge[3]
  kept[n] = lines[n] .. ':' .. charge[5]
end
entries = entry('settle', id, #lines > 0 and table.concat(lines, ',') or '-')
for _, charge in ipairs(charges) do
  local row = prefix .. charge[1]
  if column and charge[2] ~= '0' then call('HINCRBY', row, column, '-' .. charge[2]) end
  if charge[3] ~= '0' then call('HINCRBY', row, 'settled', charge[3]) end
  if charge[5] ~= '0' then call('HINCRBY', row, 'overrun', charge[5]) end
end
if state == 'L' then call('ZREM', leases, id) end
save(id, 'S', at, terms, spent, hold and hold.entries .. ',' .. entries or entries, table.concat(kept, ','))
local how = state == 'L' and 'settled' or hold and 'late' or 'lost'
if watched == '' then return done(how) end

-- The same as `domain.alerts.reached`. An amount of at most 2^53 is exact here, and so is any comparison with it.
local function amount_at(threshold, limit)
  local rest = limit % 10000
  return math.min(threshold * ((limit - rest) / 10000) + math.ceil(threshold * rest / 10000), MAX)
end

local told = {}
local function tell(charge, thresholds)
  local row = call('HMGET', prefix .. charge[1], 'limit', 'pin', 'granted', 'settled')
  local limit = row[2] or row[1] or '-1'
  local top, before, settled = ceiling(limit, row[3]), tonumber(charge.before), tonumber(row[4] or '0')
  if limit == '-1' or top == 0 then return end
  local field = 'r' .. charge[4]
  local raised = tonumber(call('HGET', alerts, field) or '0')
  local kept = raised
  if amount_at(raised, top) > before then
    kept = 0
    for one in gmatch(thresholds, '%d+') do
      one = tonumber(one)
      if amount_at(one, top) <= before then kept = one end
    end
  end
  for one in gmatch(thresholds, '%d+') do
    if tonumber(one) > kept and amount_at(tonumber(one), top) <= settled then
      kept = tonumber(one)
      told[#told + 1] = table.concat({charge[1], one, whole(top), row[4], at}, ' ')
    end
  end
  if kept ~= raised then call('HSET', alerts, field, whole(kept)) end
end
for _, charge in ipairs(charges) do
  local thresholds = match(' ' .. watched, ' ' .. whole(charge.place) .. ':(%S+)')
  if thresholds then tell(charge, thresholds) end
end
if #told == 0 then return done(how) end
local lines_told = table.concat(told, '\n')
call('HSET', alerts, 'c' .. id, lines_told)
return done({how, lines_told})
