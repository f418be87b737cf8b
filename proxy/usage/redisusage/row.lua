-- Reads one account for a report at one moment.
-- KEYS: 1 the account's usage, 2 its past. ARGV: the fields of the past that are asked for.
-- Returns: the running figures as book.lua keeps them, and the fields.
local text = redis.call('HGET', KEYS[1], 'now')
if not text or #ARGV == 0 then return {text} end
return {text, redis.call('HMGET', KEYS[2], unpack(ARGV))}
