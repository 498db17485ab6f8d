-- The usual reserve and settle stand here without functions: to make one takes the server about as long as a short
-- command. `rows` in `touched` and what is in `values`, names and values in turns, are written when all verbs are done.
local touched, values, begun, ended, entries, written = {}, {}, {}, {}, {}, sequence
local replies, asked, admitted, careful = {}, #verbs, false, nil
local v = 0
while v < #verbs do
  v = v + 1
  local args, reply = verbs[v], nil
  local verb = args[1]
  local name = (verb == 'reserve' or verb == 'settle') and holds .. args[2]

  -- Usual: the id is new, every account is known and has room.
  if verb == 'reserve' and fetched[name] == false then
    local limits, lines, usual = args[5], args[6], true
    for n = 1, #limits do
      local row = rows[lines[2 * n - 1]]
      if not row or row[A_ID] == 0 or row[A_CARRIED] then
        usual = false
        break
      end
      local top = row[A_PIN] == N_NO_PIN and limits[n] or row[A_PIN]
      if top >= 0 then top = top + row[A_GRANTED] end
      if top < 0 or top > N_MAX then top = N_MAX end
      if not (row[A_SETTLED] + row[A_RESERVED] + row[A_PRESUMED] + lines[2 * n] <= top) then
        usual = false
        break
      end
    end
    if usual then
      for n = 1, #limits do
        local key = lines[2 * n - 1]
        local row = rows[key]
        row[A_LIMIT] = limits[n]
        row[A_RESERVED] = row[A_RESERVED] + lines[2 * n]
        touched[key] = row
        lines[2 * n - 1] = row[A_ID]
      end
      local deadline = now + args[3]
      sequence = sequence + 1
      entries[#entries + 1] = pack('reserve', now, args[2], lines, 0)
      fetched[name] = pack('L', deadline, args[4], '', sequence)
      values[#values + 1] = name
      values[#values + 1] = fetched[name]
      begun[#begun + 1] = deadline
      begun[#begun + 1] = args[2]
      admitted = true
      reply = 'L'
    end

  -- Usual: the reservation is live, nothing is watched, nothing exceeds what was held.
  elseif verb == 'settle' and fetched[name] and args[5] == '' then
    local readable, state, when, terms, _, first, more = pcall(unpacked, fetched[name])
    local held, lines = args[6], args[7]
    local usual = readable and state == 'L' and not more and when > now and terms == args[3]
    for n = 1, usual and #held or 0 do
      local row, actual = rows[lines[2 * n - 1]], lines[2 * n]
      local exact = row and actual <= held[n] and held[n] <= row[A_RESERVED] and row[A_SETTLED] + actual <= N_MAX
      if not exact or row[A_ID] == 0 then
        usual = false
        break
      end
    end
    if usual then
      for n = 1, #held do
        local key, actual = lines[2 * n - 1], lines[2 * n]
        local row = rows[key]
        row[A_RESERVED] = row[A_RESERVED] - held[n]
        row[A_SETTLED] = row[A_SETTLED] + actual
        touched[key] = row
        lines[2 * n - 1] = row[A_ID]
      end
      sequence = sequence + 1
      entries[#entries + 1] = pack('settle', now, args[2], lines, 0)
      fetched[name] = pack('S', now, terms, args[4], first, sequence)
      values[#values + 1] = name
      values[#values + 1] = fetched[name]
      ended[#ended + 1] = args[2]
      reply = 'settled'
    end
  end

  if not reply then
    if not careful then
-- @careful
    end
    local went
    went, reply = pcall(careful[verb], args)
    if not went then reply = {err = type(reply) == 'table' and reply.err or 'ERR ' .. tostring(reply)} end
  end
  if v <= asked then replies[v] = reply end
  if v == asked and admitted and sequence >= fold_at then verbs[v + 1] = {'tidy'} end
end
-- @write
return replies
