-- Books one entry of one account. All figures are decimal strings: Lua's own numbers are exact
-- only up to 2^53. What is rare is in functions that are only made when they are needed, because
-- this runs for each account that moves something, every two seconds, for each relay.
-- KEYS: 1 the account's usage, 2 its past.
-- ARGV: 1 node, 2 number of the entry, 3 unix time, 4 the hour, day and month, "h d m",
--   5-7 sent, received, connections, 8 "monthly" or another period, 9 the quota, 0 = none,
--   then pairs: percent, and the bytes from which it is crossed.
-- Returns: the figures as they are kept, 1 if the account is new, crossed percents.
--
-- The figures: sums of all time (3), the running hour, day and month, and for each of those what
-- the sums were when it began (3 each). So only three figures change with an entry.

local function less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

local function add(a, b)
  if b == '0' then return a end
  if #a < 16 and #b < 16 then return string.format('%.0f', a + b) end
  local most = '9223372036854775807'
  a, b = string.rep('0', 20 - #a) .. a, string.rep('0', 20 - #b) .. b
  local low = string.sub(a, -10) + string.sub(b, -10)
  local high = string.sub(a, 1, 10) + string.sub(b, 1, 10)
  if low >= 1e10 then low, high = low - 1e10, high + 1 end
  local sum = string.gsub(string.format('%.0f%010.0f', high, low), '^0+(%d)', '%1')
  if less(most, sum) then return most end
  return sum
end

-- Never below 0.
local function subtract(a, b)
  if b == '0' then return a end
  if less(a, b) then return '0' end
  if #a < 16 then return string.format('%.0f', a - b) end
  a, b = string.rep('0', 20 - #a) .. a, string.rep('0', 20 - #b) .. b
  local low = string.sub(a, -10) - string.sub(b, -10)
  local high = string.sub(a, 1, 10) - string.sub(b, 1, 10)
  if low < 0 then low, high = low + 1e10, high - 1 end
  return (string.gsub(string.format('%.0f%010.0f', high, low), '^0+(%d)', '%1'))
end

local state = redis.call('HMGET', KEYS[1], 'now', 'n:' .. ARGV[1])
local sent, received, connections, rest = '0', '0', '0', ARGV[4] .. ' 0 0 0 0 0 0 0 0 0'
local text, new = state[1], 1
if text then
  new = 0
  sent, received, connections, rest = string.match(text, '^(%d+) (%d+) (%d+) (%d+ %d+ %d+ %d+ %d+ %d+ %d+ %d+ %d+ %d+ %d+ %d+)$')
  if not sent then return redis.error_reply('ERR its record is damaged') end
end

local last = state[2] and string.match(state[2], '^%d+')
if not last or less(last, ARGV[2]) then
  if not last and redis.call('HLEN', KEYS[1]) >= 64 then
    -- A new node: keep the last numbers of 256 at most, none that did not book for eight days.
    local all = redis.call('HGETALL', KEYS[1])
    local nodes = {}
    for i = 1, #all, 2 do
      if string.sub(all[i], 1, 2) == 'n:' then
        nodes[#nodes + 1] = {all[i], tonumber(string.match(all[i + 1], ' (%d+)'))}
      end
    end
    table.sort(nodes, function(a, b) return a[2] > b[2] end)
    for i, node in ipairs(nodes) do
      if i >= 256 or node[2] < tonumber(ARGV[3]) - 691200 then redis.call('HDEL', KEYS[1], node[1]) end
    end
  end

  if string.sub(rest, 1, #ARGV[4] + 1) ~= ARGV[4] .. ' ' then
    -- An hour, a day or a month has turned, or the entry is from before a turn.
    local function addPast(field, s, r, c)
      local had = redis.call('HGET', KEYS[2], field)
      if had then
        local hadSent, hadReceived, hadConnections = string.match(had, '(%d+) (%d+) (%d+)')
        s, r, c = add(hadSent, s), add(hadReceived, r), add(hadConnections, c)
      end
      redis.call('HSET', KEYS[2], field, s .. ' ' .. r .. ' ' .. c)
    end
    local figures, index = {}, {}
    for figure in string.gmatch(rest, '%d+') do figures[#figures + 1] = figure end
    for figure in string.gmatch(ARGV[4], '%d+') do index[#index + 1] = figure end
    for i, grain in ipairs({{'h', 48}, {'d', 62}, {'m', 24}}) do
      local letter, kept = grain[1], grain[2]
      local running, wanted, at = tonumber(figures[i]), tonumber(index[i]), 1 + 3 * i
      if wanted > running then
        addPast(letter .. figures[i], subtract(sent, figures[at]), subtract(received, figures[at + 1]),
          subtract(connections, figures[at + 2]))
        for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
          if string.sub(field, 1, 1) == letter and tonumber(string.sub(field, 2)) <= wanted - kept then
            redis.call('HDEL', KEYS[2], field)
          end
        end
        figures[i], figures[at], figures[at + 1], figures[at + 2] = index[i], sent, received, connections
      elseif wanted < running then
        addPast(letter .. index[i], ARGV[5], ARGV[6], ARGV[7])
        for j = 0, 2 do figures[at + j] = add(figures[at + j], ARGV[5 + j]) end
      end
    end
    rest = table.concat(figures, ' ')
  end

  sent, received, connections = add(sent, ARGV[5]), add(received, ARGV[6]), add(connections, ARGV[7])
  text = sent .. ' ' .. received .. ' ' .. connections .. ' ' .. rest
  redis.call('HSET', KEYS[1], 'now', text, 'n:' .. ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
end

local answer = {text, new}
if ARGV[9] == '0' then return answer end

local used, window = nil, 'lifetime'
if ARGV[8] == 'monthly' then
  local month, sentBefore, receivedBefore = string.match(rest, '^%d+ %d+ (%d+) .* (%d+) (%d+) %d+$')
  used, window = add(subtract(sent, sentBefore), subtract(received, receivedBefore)), month
else
  used = add(sent, received)
end
for i = 10, #ARGV, 2 do
  if less(used, ARGV[i + 1]) then break end
  local field = 't:' .. window .. ':' .. ARGV[9] .. ':' .. ARGV[i]
  local mine = ARGV[2] .. ' ' .. ARGV[1]
  local had = redis.call('HGET', KEYS[1], field)
  if not had then
    -- Told by this entry. Remember sixteen.
    local fields = {}
    for _, f in ipairs(redis.call('HKEYS', KEYS[1])) do
      if string.sub(f, 1, 2) == 't:' then
        local at, entry = string.match(redis.call('HGET', KEYS[1], f), '^(%d+) (%d+)')
        fields[#fields + 1] = {f, tonumber(at), tonumber(entry)}
      end
    end
    table.sort(fields, function(a, b)
      if a[2] ~= b[2] then return a[2] > b[2] end
      return a[3] > b[3]
    end)
    for j = 16, #fields do redis.call('HDEL', KEYS[1], fields[j][1]) end
    had = ARGV[3] .. ' ' .. mine
    redis.call('HSET', KEYS[1], field, had)
  end
  if string.match(had, '^%d+ (.*)$') == mine then answer[#answer + 1] = ARGV[i] end
end
return answer
