-- What every verb begins with. A verb reads and judges first and writes last: an error before the
-- first write leaves the ledger as it was, since a script is not rolled back.
--
-- KEYS[1] "{prefix}:meta"; every other key has the same hash tag, so that all live in one Cluster slot:
--   {prefix}:account:<key>  hash: id, limit (declared), pin, pinned (sequence of the pin), granted, reserved, settled,
--                           presumed, overrun, cut; settled0, presumed0, overrun0: what forgotten entries had added
--   {prefix}:accounts       hash: account id -> key. A collected account that comes back gets a new id
--   {prefix}:hold:<id>      string: state when fingerprint spent-fingerprint sequences lines (of account ids)
--   {prefix}:leases         sorted set: live reservation -> deadline
--   {prefix}:grants         hash: grant id -> "amount account-id sequence"; {prefix}:grants:<account id> lists them
--   {prefix}:alerts         hash: "r" and account id -> highest alert threshold raised, in basis points; "c" and
--                           reservation id -> the thresholds that its settlement reached
--   {prefix}:idle           sorted set: account of which nothing is in the journal, if it may be collected -> since when
--   {prefix}:journal        stream of "verb at lines id", by sequence
-- ARGV[1] now ("" for the server's own time), [2] state of what expires (X charged, Y given back), [3] seconds for
-- which resolved reservations are retained, ":", seconds after which idle tasks, minutes and hours are collected.
-- States: L live, S settled, R released, T released before it was reserved.
-- Amounts stay strings from ARGV to HINCRBY, which is exact; Lua's doubles only compare, and what is above 2^53 is above
-- every limit however it is rounded. Arithmetic on a string that is no number raises an error.
local MAX = 9007199254740991
local call, match, gmatch, format = redis.call, string.match, string.gmatch, string.format
local base = string.sub(KEYS[1], 1, -5)
local prefix, holds = base .. 'account:', base .. 'hold:'
local names, leases, journal = base .. 'accounts', base .. 'leases', base .. 'journal'

local meta = call('HMGET', KEYS[1], 'sequence', 'time', 'fold_at')
local sequence, started = tonumber(meta[1] or '0'), tonumber(meta[1] or '0')
local now = tonumber(ARGV[1])
if not now then
  local time = call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1e6
end
now = math.max(now, tonumber(meta[2] or '0'))
local at = format('%.17g', now)
