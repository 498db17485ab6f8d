#!lua flags=allow-oom
-- ARGV[4..] account keys. Returns how many were dropped.
-- @common
sweep(true)
local dropped = 0
for i = 4, #ARGV do
  local row = call('HMGET', prefix .. ARGV[i], 'id', 'pinned', 'reserved')
  if row[1] and (row[3] or '0') == '0' then
    drop(ARGV[i], row)
    dropped = dropped + 1
  end
end
return done(dropped)
