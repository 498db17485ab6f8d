#!lua
-- ARGV[4] grant id, [5] account key, [6] amount. Returns the balance, "C" for other terms, "V" where the sum of all
-- grants would be too large.
-- @common
sweep(true)
local id, key, amount, grants = ARGV[4], ARGV[5], ARGV[6], base .. 'grants'
local row = call('HMGET', prefix .. key, 'id', 'granted')
local known = call('HGET', grants, id)
if known then
  local granted, account = match(known, '^(%d+) (%d+) ')
  if granted ~= amount or account ~= row[1] then return done('C') end
  return done(balance(key))
end
if (row[2] or 0) + amount > MAX then return done('V') end
if not row[1] then check_open() end
local account = row[1] or open(key)
local made = entry('grant', id, account .. ':' .. amount)
call('HSET', grants, id, amount .. ' ' .. account .. ' ' .. made)
call('RPUSH', grants .. ':' .. account, id)
call('HINCRBY', prefix .. key, 'granted', amount)
return done(balance(key))
