package redisaccounts

import (
	"context"
	"errors"
)

// maxRestarts is how often a reader begins anew because what it reads changes under it.
const maxRestarts = 3

// point is how far a reader has come, and in which history. The zero point is before
// everything.
type point struct{ first, version int64 }

// changes are what happened after a point.
type changes struct {
	entries []Entry // each name once
	at      point   // first is 0 if no history has begun
	whole   bool    // accounts that are not among the entries do not exist
}

var errRestless = errors.New("the accounts change faster than they can be read")

// changes reads all that happened after from, page by page. A history that is not
// from's, or that has forgotten deletions since, is read from its beginning.
func (s *Store) changes(ctx context.Context, from point) (changes, error) {
	for range maxRestarts {
		first, err := s.page(ctx, from.version, pageRecords)
		if err != nil {
			return changes{}, err
		}
		if from.version > 0 && !first.follows(from) {
			from = point{}
			continue
		}
		c, ok, err := s.readOn(ctx, from, first)
		if err != nil || ok {
			return c, err
		}
		from = point{}
	}
	return changes{}, errRestless
}

// follows reports whether all that happened after from can be read from p on.
func (p *page) follows(from point) bool {
	return p.version >= from.version && p.floor <= from.version && (from.first == 0 || p.first == from.first)
}

// readOn reads the pages after p, which is the first after from. ok is false if the
// deletion of an account that has been read was forgotten meanwhile.
func (s *Store) readOn(ctx context.Context, from point, p page) (c changes, ok bool, err error) {
	known := point{first: from.first, version: from.version}
	if from.version == 0 {
		known.version = p.version // of what was deleted before, nothing has been read
	}
	index := make(map[string]int, len(p.entries))
	for {
		for _, e := range p.entries {
			if i, again := index[e.Name]; again {
				c.entries[i] = e
				continue
			}
			index[e.Name] = len(c.entries)
			c.entries = append(c.entries, e)
		}
		if !p.more {
			c.at, c.whole = point{p.first, p.version}, from.version == 0
			return c, true, nil
		}
		last := p.entries[len(p.entries)-1].Version
		if p, err = s.page(ctx, last, pageRecords); err != nil {
			return changes{}, false, err
		}
		if !p.follows(known) {
			return changes{}, false, nil
		}
	}
}
