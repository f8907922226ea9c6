-- One trip of one replica to the shared ledger: the arithmetic of proxy/core/ledger.py and *_trade.py, which
-- define it; tests/stores/test_lua_equals_core.py holds the two together. Change both, never one.
--
-- KEYS: the ledger's own, the hints', then one for each ask. All carry one hash tag, so that a cluster keeps them together.
-- ARGV: now ("": the server's clock; tests pass their own), lease_s, replica, number, seq, safe, leaving, hint;
-- then for each ask its kind and its numbers: b 10, c 5, q 8, in the order of the fields read below.
-- Returns {stale, seq, replicas, learning_s, how many hints}, of each hint its age and itself, then for each ask
-- its numbers, or "-" while it learns.

local now, lease_s, replica = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local number, seq, safe, leaving = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1', ARGV[7] == '1'
if now == '' then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
else
  now = tonumber(now)
end

local REMEMBERED_S = 86400  -- the ledger's own key, after the last trip of all
local MOST_HINTS = 64
local AT_ONCE_S, LEAST_CALLS, LEASED_SHARE, TURN_S = 0.1, 3, 0.95, 2.0
local min, max, floor = math.min, math.max, math.floor
local reply, at = {}, 9

local function argument()
  local value = tonumber(ARGV[at])
  at = at + 1
  return value
end

local function tell(...)
  for _, value in ipairs({...}) do
    reply[#reply + 1] = string.format('%.17g', value)
  end
end

local function read(key)
  local packed = redis.call('GET', key)
  return packed and cmsgpack.unpack(packed)
end

local function write(key, account, for_s)
  redis.call('SET', key, cmsgpack.pack(account), 'PX', max(1, math.ceil(for_s * 1000)))
end

-- Shares are kept in the order of their replicas' names: sums of floats depend on it.
local function insert(shares, share)
  local place = 1
  while shares[place] and shares[place][1] < share[1] do place = place + 1 end
  table.insert(shares, place, share)
end

-- bucket: {level, at, gone_at, shares, first, first_until, due}; share: {replica, rate, bound, demand, held_until, until}
local function grown(account, rate, burst, upto)
  local bounds, rates = 0, 0
  for _, share in ipairs(account[4]) do
    bounds, rates = bounds + share[3], rates + share[2]
  end
  local free = max(0, rate - rates)
  account[1] = min(max(0, burst - bounds), account[1] + free * max(0, upto - account[2]))
end

local function brought_forward(account, rate, burst)
  local ends = {}
  for _, share in ipairs(account[4]) do
    if share[5] <= now then ends[#ends + 1] = share end
  end
  table.sort(ends, function(one, other)
    return one[5] < other[5] or (one[5] == other[5] and one[1] < other[1])
  end)
  for _, share in ipairs(ends) do
    grown(account, rate, burst, share[5])
    account[2] = max(account[2], share[5])
    share[2], share[3] = 0, 0
  end
  grown(account, rate, burst, now)
  return account[1]
end

local function trade_bucket(key, learning_until)
  local rate, burst, keep, hand, back = argument(), argument(), argument(), argument(), argument()
  local demand, need, room, unit, left = argument(), argument(), argument(), argument(), argument()
  local account = read(key)
  if account and account[3] <= now then account = nil end

  if learning_until then
    if account or left >= 0 then
      account = account or {burst, learning_until, 0, {}, '', 0, 0}
      if left >= 0 then account[1] = min(account[1], left) end
      account[2] = max(account[2], learning_until)
      account[3] = learning_until + lease_s + (burst - account[1]) / rate
      write(key, account, account[3] - now)
    end
    reply[#reply + 1] = '-'
    return
  end

  account = account or {burst, now, now, {}, '', 0, 0}
  local level = brought_forward(account, rate, burst)
  local void, others, others_bound, others_rate, others_demand = true, {}, 0, 0, 0
  for _, share in ipairs(account[4]) do
    if share[1] == replica then
      void = share[5] <= now
    elseif share[6] > now then
      others[#others + 1] = share
      others_rate = others_rate + share[2]
      others_bound = others_bound + share[3]
      others_demand = others_demand + share[4]
    end
  end
  if void then keep, hand = 0, 0 end
  local pool = min(level + hand + back, burst - others_bound - keep)
  local due = account[5] ~= replica and now < account[6] and account[7] or 0

  local all_demand = demand + others_demand
  local part = all_demand > 0 and demand / all_demand or 0
  room = min(room, (burst - due) * part / 2)
  local own_rate = 0
  if demand > 0 and room >= LEAST_CALLS * unit then
    local leased = LEASED_SHARE * rate * (1 - due / burst / 2)
    own_rate = max(0, min(2 * demand, leased * part, leased - others_rate))
  end
  local most = max(keep, burst - others_bound - due)
  local wanted = max(need, own_rate > 0 and room or 0) - keep
  local tokens = max(0, min(wanted, most - keep, pool - due))
  local bound = keep + tokens
  if own_rate > 0 then bound = min(most, max(room, keep + tokens)) end

  if due == 0 then
    local unmet = need > max(own_rate > 0 and bound or 0, keep + tokens)
    account[5] = unmet and replica or ''
    account[6] = unmet and now + lease_s or 0
    account[7] = unmet and need or 0
  end
  account[1] = min(pool - tokens, max(0, burst - others_bound - bound))
  account[2] = max(now, account[2])
  account[4] = others
  if bound > 0 or demand > 0 then
    local held_s = own_rate > 0 and lease_s or min(AT_ONCE_S, burst / rate / 4)
    insert(others, {replica, own_rate, bound, demand, now + held_s, now + lease_s})
  end
  account[3] = now + lease_s + (burst - account[1]) / rate
  local rates = 0
  for _, share in ipairs(others) do rates = rates + share[2] end
  write(key, account, account[3] - now)
  tell(tokens, own_rate, bound, account[1] - due, max(0, rate - rates), void and 1 or 0)
end

-- cap: shares; share: {replica, counted, wanted, waiting, turn, until}
local function equal_part(slots, own_wanted, others)
  local wanted = {own_wanted}
  for _, other in ipairs(others) do wanted[#wanted + 1] = other[3] end
  table.sort(wanted)
  local left, rest = slots, #wanted
  for _, want in ipairs(wanted) do
    if want * rest >= left then break end
    left, rest = left - want, rest - 1
  end
  return rest > 0 and left / rest or left
end

local function turn_of(slots, own_wanted, part, turn, others)
  local whole = floor(part)
  local over = slots - min(whole, own_wanted)
  for _, other in ipairs(others) do over = over - min(whole, other[3]) end
  if own_wanted <= part or part == whole then return min(whole, own_wanted), turn end
  local before, fresh = 0, now - turn < TURN_S
  for _, other in ipairs(others) do
    if other[3] > part then
      local its_fresh = now - other[5] < TURN_S
      if its_fresh ~= fresh then
        if its_fresh then before = before + 1 end
      elseif other[5] < turn or (other[5] == turn and other[1] < replica) then
        before = before + 1
      end
    end
  end
  if before >= over then return whole, turn end
  return whole + 1, fresh and turn or now
end

local function owed_to(others, whole)
  local owed = 0
  for _, other in ipairs(others) do
    local due = min(other[3], whole + (now - other[5] < TURN_S and 1 or 0))
    owed = owed + max(0, min(due - other[2], other[4]))
  end
  return owed
end

local function trade_cap(key, learning_until)
  local slots, keep, own_wanted, waiting, quick = argument(), argument(), argument(), argument(), argument()
  local turn, others, others_counted, others_waiting, wanted = 0, {}, 0, 0, own_wanted
  for _, share in ipairs(read(key) or {}) do
    if share[1] == replica then
      turn = share[5]
    elseif share[6] > now then
      others[#others + 1] = share
      others_counted = others_counted + share[2]
      wanted = wanted + share[3]
      others_waiting = others_waiting + share[4]
    end
  end
  local spare = slots - keep - others_counted

  local target
  if learning_until then
    target = keep
  elseif wanted <= slots then
    target = own_wanted
    if wanted > 0 then target = target + floor((slots - wanted) * own_wanted / wanted / 2) end
  else
    local part = equal_part(slots, own_wanted, others)
    target, turn = turn_of(slots, own_wanted, part, turn, others)
    if quick > 0 and others_waiting == 0 then
      target = max(target, min(own_wanted, keep + spare))
    elseif quick > 0 then
      target = min(max(target, keep + spare - owed_to(others, floor(part))), keep + waiting)
    end
  end
  local limit = min(target, keep + max(0, spare))
  local counted = max(limit, keep)
  local free = others_waiting > 0 and -1 or 0
  if wanted <= slots then free = max(0, spare + keep - counted) end
  tell(limit, counted, free, max(0, target - limit))
  local until_ = max(now, learning_until or 0) + lease_s
  if counted > 0 or own_wanted > 0 then
    local still = max(0, waiting - max(0, limit - keep))
    insert(others, {replica, counted, own_wanted, still, turn, until_})
  end
  write(key, others, until_ - now)
end

-- quota: {gone_at, spent, name}
local function trade_quota(key, learning_until)
  local amount, window_s, back, over = argument(), argument(), argument(), argument()
  local need, left, ends_at, lasts = argument(), argument(), argument(), argument() == 1
  local account = read(key)
  if account then account[3] = account[3] or account[1] end  -- a release before this one wrote no name
  if account and account[1] <= now then account = nil end

  if learning_until then
    if left >= 0 and ends_at > 0 and (ends_at > now or lasts) then
      account = account or {lasts and now + window_s or ends_at, 0, ends_at}
      account[2] = max(account[2], amount - left)
      write(key, account, account[1] - now)
    end
    reply[#reply + 1] = '-'
    return
  end

  if not account then
    if need <= 0 and over <= 0 then return tell(0, amount, 0, 0) end
    account = {now + window_s, 0, now + window_s}
  elseif account[3] == ends_at then
    account[2] = max(0, account[2] - back)
  end
  account[2] = account[2] + over
  local granted = max(0, min(need, amount - account[2]))
  account[2] = account[2] + granted
  if lasts and granted > 0 then account[1] = now + window_s end
  write(key, account, account[1] - now)
  tell(granted, max(0, amount - account[2]), account[3], account[1] - now)
end

-- hints: a list of {seq, replica, at, hint}, the latest last. All that this replica does not know yet are told.
local function pass_hints_on(own_seq)
  local found, place = {}, -1
  while true do
    local packed = redis.call('LINDEX', KEYS[2], place)
    if not packed then break end
    local each = cmsgpack.unpack(packed)
    if each[1] <= seq or now - each[3] > lease_s then break end
    if each[2] ~= replica then
      found[#found + 1] = string.format('%.17g', now - each[3])
      found[#found + 1] = each[4]
    end
    place = place - 1
  end
  reply[#reply + 1] = tostring(#found / 2)
  for _, each in ipairs(found) do reply[#reply + 1] = each end
  if ARGV[8] ~= '' then
    redis.call('RPUSH', KEYS[2], cmsgpack.pack({own_seq, replica, now, ARGV[8]}))
    redis.call('LTRIM', KEYS[2], -MOST_HINTS, -1)
    redis.call('PEXPIRE', KEYS[2], math.ceil(lease_s * 1000))
  end
end

-- the ledger's own: {learning_until, seq, {replica -> {number, until, here}}}
local function here(replicas)
  local count = 0
  for _, each in pairs(replicas) do count = count + each[3] end
  return count
end

local ledger = read(KEYS[1]) or {0, 0, {}}
local known = ledger[3][replica]
if known and number <= known[1] then
  return {'1', tostring(ledger[2]), '0', '0'}
end
local replicas = {}
for name, each in pairs(ledger[3]) do
  if each[2] > now then replicas[name] = each end
end
local lost = ledger[2] == 0 or ledger[2] < seq
if lost or (safe and here(replicas) == 0 and ledger[1] <= now) then
  ledger[1] = now + lease_s
end
ledger[2] = max(ledger[2], seq) + 1
local learning_until = ledger[1] > now and ledger[1] or nil
replicas[replica] = {number, now + lease_s, leaving and 0 or 1}
ledger[3] = replicas
write(KEYS[1], ledger, REMEMBERED_S)

reply = {'0'}
tell(ledger[2], here(replicas), max(0, ledger[1] - now))
pass_hints_on(ledger[2])
local trades = {b = trade_bucket, c = trade_cap, q = trade_quota}
for place = 3, #KEYS do
  local kind = ARGV[at]
  at = at + 1
  trades[kind](KEYS[place], learning_until)
end
return reply
