-- Write what was changed. The journal comes first: nothing that follows can fail.
if sequence ~= written then
  for n = 1, #entries do call('XADD', journal, written + n, '', entries[n]) end
  values[#values + 1] = base .. 'clock'
  values[#values + 1] = pack(sequence, now, fold_at)
  entries, written = {}, sequence
end
local n = #values
for key, row in pairs(touched) do
  if n > 2000 then
    call('MSET', unpack(values))
    values, n = {}, 0
  end
  values[n + 1], values[n + 2] = accounts .. key, to_doubles(doubles[8 * #row], unpack(row))
  n = n + 2
end
if n > 0 then call('MSET', unpack(values)) end
if #begun > 0 then call('ZADD', leases, unpack(begun)) end
if #ended > 0 then call('ZREM', leases, unpack(ended)) end
touched, values, begun, ended = {}, {}, {}, {}
