#!lua
-- ARGV[4] account key, [5] limit ("-1": none). Returns the balance.
-- @common
sweep(true)
local key, limit = ARGV[4], ARGV[5]
local account = prefix .. key
local row = call('HMGET', account, 'id', 'granted', 'settled', 'reserved', 'presumed', 'overrun', 'pinned')
local _ = (row[2] or 0) + (row[3] or 0) + (row[4] or 0) + (row[5] or 0) + (row[6] or 0)
if not row[1] then check_open() end
local id = row[1] or open(key)

-- Exact beyond 2^53, where Lua's numbers are not: the sum is made by HINCRBY.
local function less(number)
  return number ~= '0' and call('HINCRBY', account, 'cut', '-' .. number)
end
local pinned = entry('limit', '', id .. ':' .. limit)
call('HSET', account, 'pin', limit, 'pinned', pinned, 'cut', row[3] or '0')
call('HINCRBY', account, 'cut', row[4] or '0')
call('HINCRBY', account, 'cut', row[5] or '0')
less(row[6] or '0')
local top = ceiling(limit, row[2])
less(whole(top))
local cut = call('HGET', account, 'cut')
if string.sub(cut, 1, 1) == '-' then
  cut = '0'
  call('HSET', account, 'cut', cut)
end
entry('cut', '', id .. ':' .. cut)
if row[7] then call('XDEL', journal, row[7], whole(tonumber(row[7]) + 1)) end
return done(balance(key))
