package redisaccounts

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"maskrelay/proxy/account"
	"maskrelay/proxy/fleet"
)

// Name is what operators call this source of accounts.
const Name = "redis"

// Kind is the kind of the fleet's messages that say accounts have changed.
const Kind = "accounts"

// source is account.Source's way to a Store.
type source struct {
	store *Store
	nudge chan struct{}
	// anew wants everything once more: what Redis knew may be another's now.
	anew atomic.Bool
}

// Source returns the accounts of s for an account.Store. It must be called before
// client.Run, whose messages then tell of changes at once; without them the account.Store
// looks by itself.
func Source(s *Store, client *fleet.Client) account.Source {
	src := &source{store: s, nudge: make(chan struct{}, 1)}
	client.Subscribe(Kind, func(string) { src.wake() })
	client.OnReturn(func() {
		src.anew.Store(true)
		src.wake()
	})
	return src
}

// wake never blocks: one nudge is as good as many.
func (s *source) wake() {
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

// Name is what operators call it.
func (s *source) Name() string { return Name }

// Nudges says when Fetch is worth a try at once.
func (s *source) Nudges() <-chan struct{} { return s.nudge }

var errUnfinished = errors.New("redisaccounts: the accounts in Redis are not complete: an import is under way, or broke off and must be run again")

// Fetch returns what changed since mark. Accounts that are simply gone, as after a
// restart without persistence, were not deleted by anybody: that is [ErrLost].
func (s *source) Fetch(ctx context.Context, mark string) (account.Update, error) {
	var from point
	anew := s.anew.Swap(false)
	if mark != "" && !anew {
		if _, err := fmt.Sscanf(mark, "%d:%d", &from.first, &from.version); err != nil {
			return account.Update{}, errors.New("redisaccounts: not a mark")
		}
	}
	c, err := s.store.changes(ctx, from)
	switch {
	case err != nil || c.at.first != 0:
	case len(c.entries) > 0:
		err = errUnfinished
	case mark != "":
		err = ErrLost
	}
	switch {
	case err != nil:
		if anew {
			s.anew.Store(true)
		}
		return account.Update{}, err
	case c.at.first == 0: // nobody has put an account here yet
		return account.Update{Whole: true}, nil
	}
	s.store.history.Store(c.at.first)
	u := account.Update{Mark: fmt.Sprintf("%d:%d", c.at.first, c.at.version), Whole: c.whole}
	for _, e := range c.entries {
		u.Records = append(u.Records, account.Record{Name: e.Name, Version: e.Version, Data: e.Data})
	}
	return u, nil
}
