package redisaccounts

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// keepGone is how long it is known that an account was deleted. A relay that was
	// away for longer fetches everything.
	keepGone = 24 * time.Hour
	// maxGone is how many deleted accounts are known at most.
	maxGone = 100_000
	// batch is how many records one call writes.
	batch = 100
	// maxAccounts keeps every relay's memory within bounds.
	maxAccounts = 1_000_000
	// maxVersion is the last whole number that a sorted set keeps exactly.
	maxVersion = 1 << 53
)

// All scripts get the keys data, versions, meta, gone.

// damaged is a part of scripts: it tells that a key is gone, by eviction or by hand, which
// must not be taken for the deletion of all accounts.
const damaged = `
local function damaged()
	local accounts, versions = redis.call('HLEN', KEYS[1]), redis.call('ZCARD', KEYS[2])
	if redis.call('HEXISTS', KEYS[3], 'first') == 0 then return false end
	return accounts > 0 and versions == 0 or accounts == 0 and versions > redis.call('ZCARD', KEYS[4])
end`

// get answers version and record, or nothing. A record without a version was not written
// by us; it has version 1, which no write of ours gets.
var get = redis.NewScript(`
local data = redis.call('HGET', KEYS[1], ARGV[1])
if not data then return {} end
return {redis.call('ZSCORE', KEYS[2], ARGV[1]) or '1', data}`)

// put writes triplets of name, wanted version and record (an empty one deletes), and answers
// pairs of verdict and version. Versions are times in microseconds, of which there are more
// than writes: so they are new even in a Redis that lost all or half of what it knew. "first"
// begins a history; until an import is complete there is none, and no relay takes half of it
// for the whole. A writer who knows a history adds to no other.
var put = redis.NewScript(damaged + `
local again, import = ARGV[1], ARGV[2]
local keep, most, room = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]) - redis.call('HLEN', KEYS[1])
if ARGV[6] ~= '0' and redis.call('HGET', KEYS[3], 'first') ~= ARGV[6] then return {'lost', '0'} end
if damaged() then return {'damaged', '0'} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local micros = time[1] * 1000000 + time[2]
local last = tonumber(redis.call('HGET', KEYS[3], 'version') or '0')
local was = last
local answer = {}
for i = 7, #ARGV, 3 do
	local name, want, data = ARGV[i], ARGV[i + 1], ARGV[i + 2]
	local old = redis.call('HGET', KEYS[1], name)
	local is = '0'
	if old then is = redis.call('ZSCORE', KEYS[2], name) or '1' end
	local verdict = 'done'
	if again == '1' and (old or '') == data then
		verdict = 'same'
	elseif want ~= '-1' and want ~= is then
		verdict = (old or want == '0') and 'conflict' or 'absent'
	elseif data == '' and not old then
		verdict = 'absent'
	elseif data == old and is ~= '1' then
		verdict = 'same'
	elseif data ~= '' and not old and room <= 0 then
		verdict = 'full'
	end
	if verdict == 'done' then
		last = math.max(last + 1, micros)
		is = string.format('%.0f', last)
		redis.call('ZADD', KEYS[2], is, name)
		if data == '' then
			redis.call('HDEL', KEYS[1], name)
			room = room + 1
			redis.call('ZADD', KEYS[4], string.format('%.0f', now), name)
		else
			if not old then room = room - 1 end
			redis.call('HSET', KEYS[1], name, data)
			redis.call('ZREM', KEYS[4], name)
		end
	end
	answer[#answer + 1] = verdict
	answer[#answer + 1] = is
end
if last ~= was then redis.call('HSET', KEYS[3], 'version', string.format('%.0f', last)) end
if import ~= '1' and last > 0 then redis.call('HSETNX', KEYS[3], 'first', string.format('%.0f', last)) end
local old = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', string.format('%.0f', now - keep), 'LIMIT', 0, 200)
if #old == 0 and redis.call('ZCARD', KEYS[4]) > most then old = redis.call('ZRANGE', KEYS[4], 0, 199) end
if #old > 0 then
	local floor = tonumber(redis.call('HGET', KEYS[3], 'floor') or '0')
	for _, name in ipairs(old) do
		floor = math.max(floor, tonumber(redis.call('ZSCORE', KEYS[2], name) or '0'))
		redis.call('ZREM', KEYS[2], name)
		redis.call('ZREM', KEYS[4], name)
	end
	redis.call('HSET', KEYS[3], 'floor', string.format('%.0f', floor))
end
return answer`)

// changed answers version, first, floor, whether there is more, and then triplets of
// name, version and record (an empty one was deleted) after a version;
// nothing of damaged accounts.
var changed = redis.NewScript(damaged + `
if damaged() then return {} end
local meta = redis.call('HMGET', KEYS[3], 'version', 'first', 'floor')
local answer = {meta[1] or '0', meta[2] or '0', meta[3] or '0', '0'}
local n, most = tonumber(ARGV[2]), tonumber(ARGV[3])
local rows = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, n)
local bytes = 0
for i = 1, #rows, 2 do
	local data = redis.call('HGET', KEYS[1], rows[i]) or ''
	bytes = bytes + #data
	if i > 1 and bytes > most then
		answer[4] = '1'
		return answer
	end
	answer[#answer + 1] = rows[i]
	answer[#answer + 1] = rows[i + 1]
	answer[#answer + 1] = data
end
if #rows == 2 * n then answer[4] = '1' end
return answer`)

// write is one record to be written; nil data deletes.
type write struct {
	name      string
	data      []byte
	ifVersion int64
}

// written is what became of one.
type written struct {
	version int64
	same    bool // it was there already as it is
	err     error
}

// write carries out all of writes, up to batch of them, in one step. importing means
// that more will follow, without which relays have nothing to go by.
func (s *Store) write(ctx context.Context, writes []write, importing bool) ([]written, error) {
	args := []any{"", "", keepGone.Milliseconds(), maxGone, maxAccounts, s.history.Load()}
	if importing {
		args[1] = "1"
	}
	for _, w := range writes {
		args = append(args, w.name, w.ifVersion, string(w.data))
	}
	var answer []any
	err := s.try(ctx, func(ctx context.Context, again bool) (err error) {
		if again {
			args[0] = "1"
		}
		answer, err = put.Run(ctx, s.redis, s.keys, args...).Slice()
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(answer) > 0 && answer[0] == "lost" {
		return nil, ErrLost
	}
	if len(answer) > 0 && answer[0] == "damaged" {
		return nil, errDamaged
	}
	if len(answer) != 2*len(writes) {
		return nil, errAnswer
	}
	results := make([]written, len(writes))
	for i := range results {
		if results[i], err = verdictOf(answer[2*i], answer[2*i+1], writes[i]); err != nil {
			return nil, err
		}
	}
	return results, nil
}

var (
	errAnswer  = errors.New("redisaccounts: Redis gave an answer that none of its scripts gives")
	errDamaged = errors.New("redisaccounts: Redis has lost a part of the accounts (does it evict keys, or did somebody delete one?); " +
		"delete the keys account-* that are left, and import the accounts again")
	errFull = fmt.Errorf("redisaccounts: there are %d accounts already, which is the most", maxAccounts)
)

func verdictOf(verdict, version any, w write) (written, error) {
	n, err := versionOf(version)
	switch {
	case err != nil:
		return written{}, err
	case verdict == "done":
		return written{version: n}, nil
	case verdict == "same":
		return written{version: n, same: true}, nil
	case verdict == "conflict":
		return written{err: ErrConflict}, nil
	case verdict == "absent":
		return written{err: ErrNotFound}, nil
	case verdict == "full":
		return written{err: errFull}, nil
	}
	return written{}, fmt.Errorf("%w: a verdict of %s", errAnswer, w.name)
}

// page is what one call of changed answers.
type page struct {
	version, first, floor int64
	more                  bool
	entries               []Entry
}

// page returns up to n entries after a version, also those of deleted accounts.
func (s *Store) page(ctx context.Context, since int64, n int) (page, error) {
	n = min(max(n, 1), pageRecords)
	var answer []any
	err := s.try(ctx, func(ctx context.Context, _ bool) (err error) {
		answer, err = changed.Run(ctx, s.redis, s.keys, since, n, pageBytes).Slice()
		return err
	})
	if err != nil {
		return page{}, err
	}
	if len(answer) == 0 {
		return page{}, errDamaged
	}
	if len(answer) < 4 || len(answer)%3 != 1 {
		return page{}, errAnswer
	}
	var p page
	for i, to := range []*int64{&p.version, &p.first, &p.floor} {
		if *to, err = versionOf(answer[i]); err != nil {
			return page{}, err
		}
	}
	p.more = answer[3] == "1"
	p.entries, err = entriesOf(answer[4:])
	return p, err
}

// entriesOf reads triplets of name, version and record.
func entriesOf(triplets []any) ([]Entry, error) {
	entries := make([]Entry, 0, len(triplets)/3)
	for i := 0; i+2 < len(triplets); i += 3 {
		name, isName := triplets[i].(string)
		data, isData := triplets[i+2].(string)
		version, err := versionOf(triplets[i+1])
		if !isName || !isData || err != nil {
			return nil, errAnswer
		}
		e := Entry{Name: name, Version: version}
		if data != "" {
			e.Data = []byte(data)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func versionOf(v any) (int64, error) {
	text, ok := v.(string)
	if !ok {
		return 0, errAnswer
	}
	n, err := strconv.ParseFloat(text, 64) // as sorted sets have it
	if err != nil || !(n >= 0 && n <= maxVersion) {
		return 0, errAnswer
	}
	return int64(n), nil
}
