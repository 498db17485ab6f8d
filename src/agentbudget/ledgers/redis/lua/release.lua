#!lua flags=allow-oom
-- ARGV[4] id. Returns the state that it is now in.
-- @common
local id = ARGV[4]
local hold = look(id)
if hold and hold.state ~= 'L' then return done(hold.state) end
if not hold then
  save(id, 'T', at, '-', '-', entry('release', id, '-'), '-')
  return done('R')
end
local rows = rows_of(hold.lines)
local entries = hold.entries .. ',' .. entry('release', id, '-')
for _, row in ipairs(rows) do call('HINCRBY', row[1], 'reserved', '-' .. row[2]) end
call('ZREM', leases, id)
save(id, 'R', at, hold.terms, '-', entries, hold.lines)
return done('R')
