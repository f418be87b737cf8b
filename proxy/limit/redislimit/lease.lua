-- Leases slots and takes tokens of one key for one relay. Everything is absolute but the tokens, so that the same call twice does
-- no harm, and a call that comes late, after a newer one, does nothing. The clock is Redis's.
--
-- KEYS[1]: hash; a relay's field is "slots:expiry_ms:in_use:sequence", the field "rate" is "tokens:time_us:rate:burst",
-- and "tight" is the time in ms at which a relay was refused slots.
-- ARGV: 1 field, 2 TTL in ms, 3 sequence,
--       4 limit (0 none), 5 slots the relay may use meanwhile, 6 in use, 7 relays of the fleet,
--       8 rate (0 none), 9 burst, 10 connections waiting for a slot, 11 block of slots it would like,
--       12 connections waiting for a token, 13 block of tokens it would like, 14 tokens given back. Zeros at the end may be missing.
-- Returns slots held, slots free (below 0 if the relays have more than the limit, 0 too if a relay was refused some lately), relays (0: nothing is said of the others), tokens
-- taken, wait for a token in us, slots held before (-1: not registered, -2: the call is late), tokens left.
local clock = redis.call('TIME')
local us = clock[1] * 1000000 + clock[2]
local ms = math.floor(us / 1000)
local me, argument = ARGV[1], {}
for i = 2, 14 do argument[i] = tonumber(ARGV[i] or 0) end
local ttl, sequence, limit, hold, inuse = argument[2], argument[3], argument[4], argument[5], argument[6]
local rate, burst, waiting, block, need = argument[8], argument[9], argument[10], argument[11], argument[12]

-- A mere renewal need not look at the others as long as none of them was refused lately.
if #ARGV < 10 and inuse > 0 then
  local mine = redis.call('HMGET', KEYS[1], me, 'tight', 'rate')
  local slots, expiry, number = string.match(mine[1] or '', '^(%d+):(%d+):%d+:(%d+)$')
  local known = slots and tonumber(slots) >= hold and tonumber(expiry) > ms and tonumber(number) <= sequence
  if known and not mine[2] and (rate > 0 or not mine[3]) then
    redis.call('HSET', KEYS[1], me, string.format('%d:%.0f:%d:%.0f', hold, ms + ttl, inuse, sequence))
    local keep = ttl
    if mine[3] then keep = ttl + math.min(math.ceil(burst / rate * 1000), 2592000000) end
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', keep))
    return {hold, -1, 0, 0, 0, tonumber(slots), 0}
  end
end

local others, relays, kept, keep, bucket, tight = 0, 1, -1, ttl, false, false
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if all[i] == 'rate' then
    bucket = all[i + 1]
  elseif all[i] == 'tight' then
    tight = tonumber(all[i + 1])
  else
    local slots, expiry, used, number = string.match(all[i + 1], '^(%d+):(%d+):(%d+):(%d+)$')
    expiry = tonumber(expiry or 0)
    if all[i] == me then
      if tonumber(number or 0) > sequence then
        return {0, 0, 0, 0, 0, -2, 0}
      elseif tonumber(number or 0) == sequence then
        argument[14] = 0 -- they came back when this call ran first
      end
      if expiry > ms then kept = tonumber(slots) end
    elseif expiry > ms then
      if expiry > ms + 2 * ttl then -- the clock was set back: whoever is alive will renew it
        expiry = ms + ttl
        redis.call('HSET', KEYS[1], all[i], string.format('%s:%.0f:%s:%s', slots, expiry, used, number))
      end
      others, relays, keep = others + tonumber(slots), relays + 1, math.max(keep, expiry - ms)
    else
      redis.call('HDEL', KEYS[1], all[i])
    end
  end
end

relays = math.max(relays, argument[7])

-- What is registered and not run out is counted by everybody: keeping it exceeds nothing.
local floor = inuse
if kept >= hold then floor = hold end
local granted, free = floor, 0
if limit > 0 then
  local available = limit - others
  local wanted = inuse + math.max(waiting, math.min(block, math.floor((available - inuse) / (4 * relays))))
  granted = math.max(floor, math.min(wanted, available))
  free = available - granted
  if tight and tight > ms - 2000 then free = math.min(free, 0) end -- somebody waits for it
  if free < 0 or granted < inuse + waiting then
    redis.call('HSET', KEYS[1], 'tight', string.format('%.0f', ms))
  elseif tight and tight < ms - ttl then
    redis.call('HDEL', KEYS[1], 'tight')
  end
end

local taken, wait, left = 0, 0, 0
if bucket or rate > 0 then
  local tokens, at, r, b = burst, us, rate, burst
  if bucket then
    tokens, at, r, b = string.match(bucket, '^([^:]+):([^:]+):([^:]+):([^:]+)$')
    tokens, at, r, b = tonumber(tokens), tonumber(at), tonumber(r), tonumber(b)
    tokens = math.min(b, tokens + math.max(us - at, 0) * r / 1000000 + argument[14])
  end
  if rate > 0 then
    r, b = rate, burst
    tokens = math.min(b, tokens)
    if limit == 0 or waiting == 0 or granted > inuse then
      local whole = math.floor(tokens + 1e-6) -- a rounding is no reason to wait
      taken = math.max(0, math.min(whole, math.max(need, math.min(argument[13], math.floor(whole / (4 * relays))))))
      tokens = tokens - taken
    end
    wait = math.min(math.ceil(math.max(1 - 5e-7 - tokens, 0) / r * 1000000), 86400000000)
    left = math.max(math.floor(tokens), 0)
  end
  if tokens < b then
    redis.call('HSET', KEYS[1], 'rate', string.format('%.17g:%.0f:%.17g:%.17g', tokens, us, r, b))
    keep = math.max(keep, math.min(math.ceil((b - tokens) / r * 1000), 2592000000))
  elseif bucket then
    redis.call('HDEL', KEYS[1], 'rate')
  end
end

if granted > 0 then
  redis.call('HSET', KEYS[1], me, string.format('%d:%.0f:%d:%.0f', granted, ms + ttl, inuse, sequence))
else
  redis.call('HDEL', KEYS[1], me)
  if tight and others == 0 then redis.call('HDEL', KEYS[1], 'tight') end
end
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', keep))
return {granted, free, relays, taken, wait, kept, left}
