#!lua flags=allow-oom
-- ARGV[4] the last sequence that was read ("0": none yet), [5] how many entries. Returns the epoch, that many entries,
-- and, with the last of them, every account. Nothing is forgotten for a minute, so that the pages of one reading fit
-- together; where a reading takes longer, another epoch tells.
-- @common
sweep(true)
local count = tonumber(ARGV[5])
local entries = {}
if count > 0 then
  call('HSET', KEYS[1], 'read_until', format('%.17g', now + 60))
  entries = call('XRANGE', journal, '(' .. ARGV[4], '+', 'COUNT', count)
end
local accounts = {}
if #entries < count or count == 0 then
  local known = call('HGETALL', names)
  for i = 1, #known, 2 do
    accounts[#accounts + 1] = {known[i], known[i + 1], call('HMGET', prefix .. known[i + 1], 'settled', 'reserved',
      'presumed', 'overrun', 'cut', 'granted', 'pin', 'settled0', 'presumed0', 'overrun0')}
  end
end
return done({call('HGET', KEYS[1], 'epoch') or '0', entries, accounts})
