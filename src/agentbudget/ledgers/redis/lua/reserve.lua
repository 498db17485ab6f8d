-- id, lease, fingerprint, limits (-1: none), lines (key, amount, ...). Returns a state, "C" for other terms, or per
-- account without room its place (from 1) and balance. What is due is left to the next reading, refusal or forgetting:
-- expired or not, it counts.
local function reserve(args)
  local id, terms = args[2], args[4]
  local hold, name = look(id)
  if hold then
    if hold[H_STATE] ~= 'T' and hold[H_TERMS] ~= terms then return 'C' end
    return hold[H_STATE]
  end
  local limits, lines, short = args[5], args[6], nil
  for n = 1, #limits do
    local row = rows[lines[2 * n - 1]] or read(lines[2 * n - 1])
    local top = row[A_PIN] == N_NO_PIN and limits[n] or row[A_PIN]
    if top >= 0 then top = top + row[A_GRANTED] end
    if top < 0 or top > N_MAX then top = N_MAX end
    local fits = row[A_SETTLED] + row[A_RESERVED] + row[A_PRESUMED] + lines[2 * n] <= top
    if not fits or row[A_CARRIED] and is_large(row) then
      short = short or {}
      short[#short + 1] = n
    end
  end
  if short then
    if sweep_all() then return reserve(args) end
    return refuse(args, short)
  end
  open(lines)
  for n = 1, #limits do
    local key = lines[2 * n - 1]
    local row = rows[key]
    row[A_LIMIT] = limits[n]
    add(row, A_RESERVED, lines[2 * n])
    touched[key] = row
    lines[2 * n - 1] = row[A_ID]
  end
  local deadline = now + args[3]
  save(name, {'L', deadline, terms, '', enter('reserve', id, lines)})
  begun[#begun + 1] = deadline
  begun[#begun + 1] = id
  admitted = true
  return 'L'
end
