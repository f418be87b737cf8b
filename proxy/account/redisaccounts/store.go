package redisaccounts

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"maskrelay/proxy/account"
	"maskrelay/proxy/fleet"
)

const (
	// AnyVersion is for writers that want the last word whatever is there.
	AnyVersion int64 = -1
	// MustNotExist is for writers that create.
	MustNotExist int64 = 0

	// MaxData is the most bytes that a record may have.
	MaxData = 64 << 10

	// callTimeout bounds one call. None of them is on a customer's way.
	callTimeout = fleet.LongestCall
	// pageRecords and pageBytes bound what one call reads.
	pageRecords = 500
	pageBytes   = 1 << 20
	// attempts is how often a call that got no answer is made.
	attempts = 3
	// nudgeTimeout bounds the message after a write; relays look by themselves, too.
	nudgeTimeout = 100 * time.Millisecond
)

var (
	// ErrNotFound means that there is no account of that name. Nothing was written.
	ErrNotFound = errors.New("redisaccounts: no such account")
	// ErrConflict means that the account's version is not the one that was asked for:
	// another writer was faster. Nothing was written; look again, then try again.
	ErrConflict = errors.New("redisaccounts: the account has another version")
	// ErrLost means that Redis no longer has the accounts that this Store has seen there,
	// as after a restart without persistence. Nothing was written: the relays would take
	// one new account for all there are. Import the accounts again.
	ErrLost = errors.New("redisaccounts: Redis has lost the accounts (was it restarted empty?); import them again")
)

// Entry is one account as Redis has it.
type Entry struct {
	Name string
	// Version is that of the last write; no other write has the same.
	Version int64
	// Data is the record; nil means that the account was deleted.
	Data []byte
}

// Store reads and writes the accounts in Redis. Calls are bounded by their context and
// by a few seconds. Safe for concurrent use.
type Store struct {
	client *fleet.Client
	redis  redis.UniversalClient
	keys   []string
	// history is the beginning of the one that was read last; 0 is none.
	history atomic.Int64
}

// New returns a Store; it calls nothing.
func New(client *fleet.Client) *Store {
	s := &Store{client: client, redis: client.Redis()}
	for _, what := range []string{"data", "versions", "meta", "gone"} {
		s.keys = append(s.keys, client.Key("account-"+what, "accounts"))
	}
	return s
}

// Get returns the account of that name. The error is ErrNotFound, or says why Redis
// could not be asked.
func (s *Store) Get(ctx context.Context, name string) (Entry, error) {
	var found []any
	err := s.try(ctx, func(ctx context.Context, _ bool) (err error) {
		found, err = get.Run(ctx, s.redis, s.keys, name).Slice()
		return err
	})
	if err != nil {
		return Entry{}, fmt.Errorf("redisaccounts: get: %w", err)
	}
	if len(found) < 2 {
		return Entry{}, ErrNotFound
	}
	entries, err := entriesOf([]any{name, found[0], found[1]})
	if err != nil {
		return Entry{}, err
	}
	return entries[0], nil
}

// Put writes the record of name if its version is ifVersion, which may also be
// [AnyVersion] or [MustNotExist], and returns its new version. A record that is there
// already as it is keeps its version. data is what account.Account.StoredJSON returned.
// The error may be ErrConflict. After an error that says Redis did not answer, the
// write may have happened or not.
func (s *Store) Put(ctx context.Context, name string, data []byte, ifVersion int64) (version int64, err error) {
	if err := checkRecord(name, data); err != nil {
		return 0, err
	}
	return s.writeOne(ctx, write{name, data, ifVersion})
}

// writeOne carries out one write and tells the relays.
func (s *Store) writeOne(ctx context.Context, w write) (version int64, err error) {
	results, err := s.write(ctx, []write{w}, false)
	if err != nil {
		return 0, fmt.Errorf("redisaccounts: write: %w", err)
	}
	if results[0].err == nil && !results[0].same {
		s.nudge(ctx)
	}
	return results[0].version, results[0].err
}

// nudge tells the relays that accounts have changed. One that misses it looks by itself.
func (s *Store) nudge(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, nudgeTimeout)
	defer cancel()
	_ = s.client.Publish(ctx, Kind, "")
}

// Delete deletes the account of name if its version is ifVersion, which may also be
// [AnyVersion]. The error may be ErrNotFound or ErrConflict; others are as those of Put.
func (s *Store) Delete(ctx context.Context, name string, ifVersion int64) error {
	_, err := s.writeOne(ctx, write{name, nil, ifVersion})
	return err
}

// List returns up to n accounts (at most 500, and by some 1 MB of records, but one at
// least) from the place that cursor names, "" being the beginning, and where to go on,
// "" at the end. They come in the order of their last changes, and one that changes
// meanwhile may come a second time.
func (s *Store) List(ctx context.Context, cursor string, n int) (entries []Entry, next string, err error) {
	since := int64(0)
	if cursor != "" {
		if since, err = strconv.ParseInt(cursor, 10, 64); err != nil || since < 0 {
			return nil, "", errors.New("redisaccounts: list: not a cursor")
		}
	}
	for {
		p, err := s.page(ctx, since, n)
		if err != nil {
			return nil, "", fmt.Errorf("redisaccounts: list: %w", err)
		}
		for _, e := range p.entries {
			since = e.Version
			if e.Data != nil {
				entries = append(entries, e)
			}
		}
		switch {
		case !p.more:
			return entries, "", nil
		case len(entries) > 0: // a page of deleted accounts alone is none
			return entries, strconv.FormatInt(since, 10), nil
		}
	}
}

// Since returns what changed after version, deleted accounts included, in the order of
// the changes, and the version to ask from the next time; 0 asks for everything. Whoever
// asks from a version that is too old to know what was deleted since, or that this Redis
// never had, gets everything too: the caller can tell by whole, which reports that
// an account that is not among the entries does not exist.
func (s *Store) Since(ctx context.Context, version int64) (entries []Entry, to int64, whole bool, err error) {
	c, err := s.changes(ctx, point{version: version})
	if err != nil {
		return nil, 0, false, fmt.Errorf("redisaccounts: since: %w", err)
	}
	return c.entries, c.at.version, c.whole, nil
}

// checkRecord is the last look at what is about to be stored.
func checkRecord(name string, data []byte) error {
	if err := account.CheckName(name); err != nil {
		return fmt.Errorf("redisaccounts: %w", err)
	}
	if len(data) == 0 || len(data) > MaxData {
		return fmt.Errorf("redisaccounts: a record must have 1 to %d bytes", MaxData)
	}
	return nil
}

// try calls f until Redis answers, a few times at most. again tells f that an earlier
// call may have been carried out without a word.
func (s *Store) try(ctx context.Context, f func(ctx context.Context, again bool) error) error {
	for n := 1; ; n++ {
		called, cancel := context.WithTimeout(ctx, callTimeout)
		err := f(called, n > 1)
		cancel()
		if err == nil {
			return nil
		}
		_, answered := errors.AsType[redis.Error](err)
		if answered || n == attempts || ctx.Err() != nil {
			return fleet.Explain(err)
		}
	}
}
