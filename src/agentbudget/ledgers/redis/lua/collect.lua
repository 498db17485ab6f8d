#!lua flags=allow-oom
-- ARGV[4..] account keys. Returns how many were dropped.
sweep(true)
local dropped = 0
for i = 4, #ARGV do
  local account = prefix .. ARGV[i]
  local row = call('HMGET', account, 'id', 'reserved', 'pinned')
  if row[1] and (row[2] or '0') == '0' then
    local grants = base .. 'grants'
    for _, grant in ipairs(call('LRANGE', grants .. ':' .. row[1], 0, -1)) do
      call('XDEL', journal, match(call('HGET', grants, grant), '(%d+)$'))
      call('HDEL', grants, grant)
    end
    call('DEL', grants .. ':' .. row[1])
    if row[3] then call('XDEL', journal, row[3], whole(tonumber(row[3]) + 1)) end
    call('HDEL', base .. 'alerts', 'r' .. row[1])
    call('DEL', account)
    call('HDEL', names, row[1])
    dropped = dropped + 1
  end
end
return done(dropped)
