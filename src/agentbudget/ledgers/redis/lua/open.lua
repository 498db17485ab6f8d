#!lua
-- ARGV[4] schema version, [5] what expiry does. Returns what the ledger was made with; made now where there is none.
-- The lengths are read so that a foreign key of another type is found here.
-- @common
call('HLEN', names)
call('HLEN', base .. 'grants')
call('HLEN', base .. 'alerts')
call('ZCARD', base .. 'idle')
call('ZCARD', leases)
call('XLEN', journal)
call('HSETNX', KEYS[1], 'schema', ARGV[4])
call('HSETNX', KEYS[1], 'on_expire', ARGV[5])
return call('HMGET', KEYS[1], 'schema', 'on_expire')
