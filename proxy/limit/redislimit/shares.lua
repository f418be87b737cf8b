-- Divides the bandwidth of one key among the relays that use it, each direction by itself. The clock is Redis's.
--
-- KEYS[1]: hash; a relay's field holds, packed as little-endian float64, the wanted and the shares, each sent and received,
-- and the expiry in ms. (Reading text takes twice the time.)
-- ARGV: 1 field, 2 bandwidth, 3 wanted sent, 4 wanted received, 5 relays of the fleet, 6 TTL in ms. Bytes per second;
-- less than 0 is wanted by a relay that does not use the key any more.
-- Returns the relay's shares, sent and received.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local me, bandwidth, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[6])
local wants = {{tonumber(ARGV[3])}, {tonumber(ARGV[4])}}
local users, known, held, others = 1, false, {0, 0}, {0, 0}

if wants[1][1] < 0 then
  redis.call('HDEL', KEYS[1], me)
  local equal = math.max(1, math.floor(bandwidth / ARGV[5]))
  return {equal, equal}
end

local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local ws, wr, ss, sr, expiry = 0, 0, 0, 0, 0
  if #all[i + 1] == 40 then
    ws, wr, ss, sr, expiry = struct.unpack('<ddddd', all[i + 1])
  end
  if not (expiry > now and expiry <= now + 10 * ttl) then -- or the clock was set back
    redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] == me then
    known, held = true, {ss, sr}
  else
    users = users + 1
    wants[1][users], wants[2][users] = ws, wr
    others[1], others[2] = others[1] + ss, others[2] + sr
  end
end

-- fair is my max-min fair share: what I want if all can have that or as much as I, else as much as the others who lack some.
-- Everyone gets a little more than he wants, so that it shows when he could use more. What nobody wants is divided too, more
-- of it to those who want more, for whoever wants it next need not ask first.
local function fair(wanted)
  local sum = 0
  for i = 1, users do
    wanted[i] = wanted[i] + wanted[i] / 12 + bandwidth / 32 / users
    sum = sum + wanted[i]
  end
  local mine = wanted[1]
  if sum <= bandwidth then
    return mine + (bandwidth - sum) * (mine + bandwidth / 8) / (sum + users * bandwidth / 8)
  end
  table.sort(wanted)
  local rest = bandwidth
  for i = 1, users do
    local level = rest / (users - i + 1)
    if wanted[i] > level then return math.min(mine, level) end
    rest = rest - wanted[i]
  end
  return mine -- not reached but by rounding
end

local shares = {}
for d = 1, 2 do
  -- Less than before applies at once; more only as far as the others have let go of it. The exceptions are small, or
  -- short: they last until the others ask again.
  local atOnce = others[d] < bandwidth and bandwidth - others[d] or 0
  if known then
    atOnce = math.max(atOnce, held[d], bandwidth / 10 / users)
  else
    atOnce = math.max(atOnce, bandwidth / math.max(users, tonumber(ARGV[5])))
  end
  shares[d] = math.max(1, math.floor(math.min(fair(wants[d]), atOnce)))
end
redis.call('HSET', KEYS[1], me, struct.pack('<ddddd', ARGV[3], ARGV[4], shares[1], shares[2], now + ttl))
redis.call('PEXPIRE', KEYS[1], ttl)
return shares
