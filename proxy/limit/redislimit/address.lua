-- Counts one client address among those of a key within the last window, if there is room for it or it is counted already.
--
-- KEYS[1]: sorted set of hashed addresses by the time in ms when they were last seen. ARGV: 1 hashed address, 2 window in ms, 3 maximum.
-- Returns 0, or the ms until the oldest address leaves the window.
local clock = redis.call('TIME')
local ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local window = tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', ms - window))
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%.0f', ms + window), '+inf') -- the clock was set back
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then
  local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  return math.max(1, oldest[2] + window - ms)
end
redis.call('ZADD', KEYS[1], string.format('%.0f', ms), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 0
