-- The script of the ledger: it carries out a list of verbs, one after the other, as a whole.
--
-- A verb reads and judges first and changes last, so an error in it leaves everything as it was and fails that verb
-- only. What verbs change stays in tables until all are done; `flush` writes it, each account once.
--
-- KEYS[1] "{prefix}:meta"; every other key has the same hash tag, so that all live in one Cluster slot:
--   {prefix}:meta           hash: schema, on_expire, rows (the last account id), folded (the last sequence that was
--                           looked at), epoch, read_until
--   {prefix}:clock          packed: the last sequence, its time, the sequence at which to look what can be forgotten
--   {prefix}:account:<key>  eight doubles: id, limit (declared), granted, pin (-2: none), settled, reserved, presumed,
--                           overrun; once one of the last four was larger than N_MAX, four more: how often 2^53 is to
--                           be added to each
--   {prefix}:rare:<id>      hash: pinned (sequence of the pin), cut; settled0, presumed0, overrun0: what forgotten
--                           entries had added
--   {prefix}:accounts       hash: account id -> key. A collected account that comes back gets a new id
--   {prefix}:hold:<id>      a reservation, packed: state, when, fingerprints of its terms and of what was spent,
--                           sequences of its entries
--   {prefix}:leases         sorted set: live reservation -> deadline
--   {prefix}:grants         hash: grant id -> "amount account-id sequence"; {prefix}:grants:<account id> lists them
--   {prefix}:alerts         hash: "r" and account id -> highest alert threshold raised, in basis points; "c" and
--                           reservation id -> the thresholds that its settlement reached
--   {prefix}:idle           sorted set: account of which nothing is in the journal, if it may be collected -> since
--                           when
--   {prefix}:journal        stream by sequence, each entry packed: verb, at, id, lines (account id, amount, ...),
--                           overruns (account id, amount, ...; 0: none)
-- ARGV[1] now ("" for the server's own time), [2] state of what expires (X charged, Y given back), [3] for how long
-- resolved reservations are retained, [4] after how long idle tasks, minutes and hours are collected, then the verbs:
-- name and arguments of each, packed. Returns the reply of each, or its error. Times are whole microseconds.
-- States: L live, S settled, R released, T released before it was reserved.
-- An amount is at most 2^53 - 1, which Lua's doubles hold exactly; limits and grants, too.
local call, pack, unpacked = redis.call, cmsgpack.pack, cmsgpack.unpack
local doubles, to_doubles, from_doubles = {[64] = '<dddddddd', [96] = '<dddddddddddd'}, struct.pack, struct.unpack
local base = string.sub(KEYS[1], 1, -5)
local accounts, holds = base .. 'account:', base .. 'hold:'
local names, leases, journal = base .. 'accounts', base .. 'leases', base .. 'journal'

-- Everything that usual verbs are about is read in one go; a reservation's key of another type counts as none.
local verbs, rows, fetched = {}, {}, {}
local keys, wanted, n = {base .. 'clock'}, {}, 1
for v = 5, #ARGV do
  local args = {unpacked(ARGV[v])}
  local lines = args[1] == 'reserve' and args[6] or args[1] == 'settle' and args[7]
  verbs[v - 4] = args
  if lines then
    n = n + 1
    keys[n] = holds .. args[2]
    for i = 1, #lines, 2 do
      local key = lines[i]
      if rows[key] == nil and n < 1000 then
        n = n + 1
        keys[n], wanted[n], rows[key] = accounts .. key, key, false
      end
    end
  end
end
local found = call('MGET', unpack(keys))
for place = 2, n do
  local packed, key = found[place], wanted[place]
  if not key then
    fetched[keys[place]] = packed
  elseif packed and doubles[#packed] then
    local row = {from_doubles(doubles[#packed], packed)}
    row[#row] = nil
    rows[key] = row
  end
end

-- The length is read so that a key of another type is found before anything is written.
call('ZCARD', leases)
local sequence, last, fold_at = 0, 0, 0
if found[1] then sequence, last, fold_at = unpacked(found[1]) end
local now = tonumber(ARGV[1])
if not now then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end
if now < last then now = last end
