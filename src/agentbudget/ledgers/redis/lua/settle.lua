#!lua flags=allow-oom
-- ARGV[4] id, [5] fingerprint of what was reserved, [6] of what was spent, then key, reserved, actual of each charge.
-- Returns "settled", "late", "lost", "duplicate" or "C" for other terms.
local id, terms, spent = ARGV[4], ARGV[5], ARGV[6]
local hold = look(id)
local state = hold and hold.state
if hold and state ~= 'T' then
  if hold.terms ~= terms then return done('C') end
  if state == 'S' then return done(hold.spent == spent and 'duplicate' or 'C') end
end
local mine = hold and state ~= 'T' and ',' .. hold.lines

local column = state == 'L' and 'reserved' or state == 'X' and 'presumed' or nil
local charges = {}
for i = 7, #ARGV, 3 do
  local row = call('HMGET', prefix .. ARGV[i], 'id', 'settled', column or 'reserved')
  if (row[2] or 0) + (row[3] or 0) > 4e18 then error('an account of the ledger is full') end
  if not row[1] then check_open() end
  -- An account that the reservation held may have been collected since: what it held went with it.
  local gone = mine and ARGV[i + 1] ~= '0' and not (row[1] and string.find(mine, ',' .. row[1] .. ':', 1, true))
  if not gone then charges[#charges + 1] = {ARGV[i], ARGV[i + 1], ARGV[i + 2], row[1]} end
end

local lines, kept = {}, {}
for n, charge in ipairs(charges) do
  local over = charge[3] - (column and charge[2] or 0)
  charge[4] = charge[4] or open(charge[1])
  charge[5] = over > 0 and whole(over) or '0'
  lines[n] = charge[4] .. ':' .. charge[3]
  kept[n] = lines[n] .. ':' .. charge[5]
end
local entries = entry('settle', id, #lines > 0 and table.concat(lines, ',') or '-')
for _, charge in ipairs(charges) do
  local row = prefix .. charge[1]
  if column and charge[2] ~= '0' then call('HINCRBY', row, column, '-' .. charge[2]) end
  if charge[3] ~= '0' then call('HINCRBY', row, 'settled', charge[3]) end
  if charge[5] ~= '0' then call('HINCRBY', row, 'overrun', charge[5]) end
end
if state == 'L' then call('ZREM', leases, id) end
save(id, 'S', at, terms, spent, hold and hold.entries .. ',' .. entries or entries, table.concat(kept, ','))
return done(state == 'L' and 'settled' or hold and 'late' or 'lost')
