-- id, fingerprint of what was reserved, of what was spent, alert thresholds in basis points ("key 5000,8000 key 10000",
-- or nothing), what was reserved, lines (key, actual, ...). Returns "settled", "late", "lost", "duplicate" or "C" for
-- other terms; where thresholds were reached, a pair of that and (at, (key, threshold, limit, how often 2^53 is in what
-- was settled, the rest) each), packed.
local function settle(args)
  local id, terms, spent, watched = args[2], args[3], args[4], args[5]
  local hold, name = look(id)
  local state = hold and hold[H_STATE]
  if hold and state ~= 'T' then
    if hold[H_TERMS] ~= terms or state == 'S' and hold[H_SPENT] ~= spent then return 'C' end
    if state == 'S' then return duplicate(id) end
  end
  local held, lines = args[6], args[7]
  for i = 1, #lines, 2 do
    if not rows[lines[i]] then read(lines[i]) end
  end
  if state == 'X' or state == 'Y' or state == 'R' then
    held, lines = still_there(hold, held, lines)
  end
  local charged = watched ~= '' and watch(watched, lines)
  local column = state == 'L' and A_RESERVED or state == 'X' and A_PRESUMED
  local how = state == 'L' and 'settled' or hold and 'late' or 'lost'
  local overruns
  open(lines)
  for n = 1, #held do
    local key, actual = lines[2 * n - 1], lines[2 * n]
    local row, over = rows[key], actual
    if column then
      add(row, column, -held[n])
      over = actual - held[n]
    end
    add(row, A_SETTLED, actual)
    touched[key] = row
    lines[2 * n - 1] = row[A_ID]
    if over > 0 then
      add(row, A_OVERRUN, over)
      overruns = overruns or {}
      overruns[#overruns + 1] = row[A_ID]
      overruns[#overruns + 1] = over
    end
  end
  hold = hold or {}
  hold[H_STATE], hold[H_WHEN], hold[H_TERMS], hold[H_SPENT] = 'S', now, terms, spent
  hold[#hold + 1] = enter('settle', id, lines, overruns)
  save(name, hold)
  if state == 'L' then ended[#ended + 1] = id end
  if not charged then return how end
  return tell(id, charged, how)
end
