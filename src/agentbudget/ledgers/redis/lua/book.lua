-- What is not usual, complete in itself. It is made when it is first needed, which takes the server some 6 us.

-- Add to a sum that becomes larger than N_MAX, as only what was settled can. Each step is exact: no number is
-- larger than N_BIG.
local function carry(row, column, amount)
  for place = A_CARRIED, A_CARRIED + A_OVERRUN - A_SETTLED do row[place] = row[place] or 0 end
  local carries = column - A_SETTLED + A_CARRIED
  row[column] = row[column] - (N_BIG - amount)
  row[carries] = row[carries] + 1
end

-- An account that was not read yet, or is new.
local function read(key)
  local packed, row = call('GET', accounts .. key), nil
  if packed then
    row = {from_doubles(doubles[#packed] or error('an account of the ledger is not readable'), packed)}
    row[#row] = nil
  else
    call('HLEN', names)
    call('XLEN', journal)
    row = {0, -1, 0, N_NO_PIN, 0, 0, 0, 0}
  end
  rows[key] = row
  return row
end

-- Give the new accounts in *lines* their ids.
local function open(lines)
  for n = 1, #lines, 2 do
    local row = rows[lines[n]]
    if row[A_ID] == 0 then
      row[A_ID] = call('HINCRBY', KEYS[1], 'rows', 1)
      call('HSET', names, row[A_ID], lines[n])
    end
  end
end

local function add(row, column, amount)
  local sum = row[column] + amount
  if sum <= N_MAX then row[column] = sum else carry(row, column, amount) end
end

local function save(name, hold)
  fetched[name] = pack(unpack(hold))
  values[#values + 1] = name
  values[#values + 1] = fetched[name]
end

local function enter(verb, id, lines, overruns)
  sequence = sequence + 1
  entries[#entries + 1] = pack(verb, now, id, lines, overruns or 0)
  return sequence
end

local function flush()
-- @write
end

