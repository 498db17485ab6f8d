-- What a settle does beside the usual: answer a repeated one, leave out accounts that are gone, tell thresholds.
local function duplicate(id)
  local told = call('HGET', alerts, 'c' .. id)
  return told and {'duplicate', told} or 'duplicate'
end

-- *held* and *lines* without the accounts that the resolved reservation *hold* held and that were collected since: what
-- was held went with them, and an account of such a name is another.
local function still_there(hold, held, lines)
  local mine, held_there, there = {}, {}, {}
  local first = told_by(hold[H_FIRST])
  for n = 1, #first, 2 do mine[first[n]] = true end
  for n = 1, #held do
    if held[n] == 0 or mine[rows[lines[2 * n - 1]][A_ID]] then
      held_there[#held_there + 1] = held[n]
      there[#there + 1] = lines[2 * n - 1]
      there[#there + 1] = lines[2 * n]
    end
  end
  return held_there, there
end

-- The accounts in *lines* that have thresholds in *watched*: key, actual, thresholds. The length is read so that a key
-- of another type is found before anything is changed.
local function watch(watched, lines)
  call('HLEN', alerts)
  local found = {}
  for key, thresholds in gmatch(watched, '(%S+) (%S+)') do found[key] = thresholds end
  local charged = {}
  for n = 1, #lines, 2 do
    if found[lines[n]] then charged[#charged + 1] = {lines[n], lines[n + 1], found[lines[n]]} end
  end
  return charged
end

-- The same as `domain.alerts.amount_at`. An amount of at most 2^53 is exact here, and so is any comparison with it.
local function amount_at(threshold, limit)
  local rest = limit % 10000
  return math.min(threshold * ((limit - rest) / 10000) + math.ceil(threshold * rest / 10000), N_MAX)
end

-- The lines of the *thresholds* that settling *actual* reached in *row*, added to *told*; as `domain.alerts.reached`.
local function reach(key, row, actual, thresholds, told)
  local limit = row[A_PIN] == N_NO_PIN and row[A_LIMIT] or row[A_PIN]
  local top = ceiling(limit, row[A_GRANTED])
  if limit < 0 or top == 0 then return end
  local carries = (row[A_CARRIED] or 0) * N_BIG
  local before, settled = row[A_SETTLED] - actual + carries, row[A_SETTLED] + carries
  local field = 'r' .. whole(row[A_ID])
  local raised = tonumber(call('HGET', alerts, field) or '0')
  local kept = raised
  if amount_at(raised, top) > before then
    kept = 0
    for one in gmatch(thresholds, '%d+') do
      one = tonumber(one)
      if amount_at(one, top) <= before then kept = one end
    end
  end
  for one in gmatch(thresholds, '%d+') do
    if tonumber(one) > kept and amount_at(tonumber(one), top) <= settled then
      kept = tonumber(one)
      told[#told + 1] = {key, kept, top, row[A_CARRIED] or 0, row[A_SETTLED]}
    end
  end
  if kept ~= raised then call('HSET', alerts, field, kept) end
end

local function tell(id, charged, how)
  local told = {}
  for _, charge in ipairs(charged) do
    local key, actual, thresholds = unpack(charge)
    reach(key, rows[key], actual, thresholds, told)
  end
  if #told == 0 then return how end
  local packed = pack({now, told})
  call('HSET', alerts, 'c' .. id, packed)
  return {how, packed}
end
