#!lua flags=allow-oom
-- ARGV[4] id, [5] lease in seconds. Returns the state found; nothing for an unknown id.
-- @common
local id = ARGV[4]
local hold = look(id)
if not hold then return done(false) end
if hold.state == 'L' then
  local deadline = format('%.17g', now + tonumber(ARGV[5]))
  call('ZADD', leases, deadline, id)
  save(id, 'L', deadline, hold.terms, '-', hold.entries, hold.lines)
end
return done(hold.state)
