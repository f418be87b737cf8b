package usage

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// ErrBatch is in the error of a Book whose batch makes no sense; nothing of it is booked.
var ErrBatch = errors.New("usage: not a batch that can be booked")

// Sums are bytes each way, as the customer sees them, and connections. Sums stop at the largest int64.
type Sums struct{ Sent, Received, Connections int64 }

// Bytes is both ways together.
func (s Sums) Bytes() int64 { return addUp(s.Sent, s.Received) }

// Plus adds.
func (s Sums) Plus(o Sums) Sums {
	return Sums{addUp(s.Sent, o.Sent), addUp(s.Received, o.Received), addUp(s.Connections, o.Connections)}
}

// minus is what s has more than an earlier o.
func (s Sums) minus(o Sums) Sums {
	return Sums{s.Sent - o.Sent, s.Received - o.Received, s.Connections - o.Connections}
}

// addUp adds two figures that are not negative and stops at the largest.
func addUp(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// Batch is what one relay books at one time.
type Batch struct {
	// Node names the relay and this start of it: no other process may have the same.
	Node string
	// At decides the hour, day and month that the entries are booked in.
	At time.Time
	// Entries hold each account at most once.
	Entries []Entry
}

// Entry is what one account moved since the entry before it.
type Entry struct {
	Account string
	// Seq rises with every new entry of the same Node and Account. An entry that is told again
	// has the same Seq and the same Sums.
	Seq int64
	Sums
	// Quota is the one in force, whose crossings are to be recorded.
	Quota Quota
}

// Total is what the ledger has of an account.
type Total struct {
	Account string
	All     Sums   // of all time
	Month   string // the running month as "2026-11"
	InMonth Sums   // of that month
	// Crossed are those of Crossings that this entry, and no other in the fleet, brought about
	// for its quota in its window. An entry told again has them again.
	Crossed []int64
}

// Used is what counts against a quota of the period, in bytes.
func (t Total) Used(p Period) int64 {
	if p == Monthly {
		return t.InMonth.Bytes()
	}
	return t.All.Bytes()
}

// Query says which rows a report has.
type Query struct {
	Account string    // empty = all accounts
	Since   time.Time // see Cover; zero = all time
}

// Row is what one account moved from From to To.
type Row struct {
	Account string
	Sums
	From, To time.Time
}

// Ledger keeps what was booked: of each account the sum of all time, 24 months, 62 days and 48
// hours, and which crossings of a quota were told. Safe for concurrent use.
type Ledger interface {
	// Book adds the entries, each one once: an entry whose Seq is not above the last one booked
	// for its Node and Account adds nothing. It returns the totals after it in the order of the
	// entries. With an error it returns the totals of those that are booked for certain; the
	// others may or may not be, and are to be told again as they were.
	Book(ctx context.Context, b Batch) ([]Total, error)
	// Totals returns the totals in the order of names, zero for an account without any. With
	// an error some may be missing.
	Totals(ctx context.Context, names []string) ([]Total, error)
	// Report returns the rows in the order of account names. An account that moved nothing in
	// the time has no row, unless the query names it.
	Report(ctx context.Context, q Query) ([]Row, error)
	// Close ends the use; all calls after it fail.
	Close() error
}

// Check reports what is wrong with the batch, as an error that wraps ErrBatch. A Ledger calls it first.
func (b Batch) Check() error {
	if b.Node == "" || len(b.Node) > MaxName {
		return fmt.Errorf("%w: a node's name of %d bytes", ErrBatch, len(b.Node))
	}
	if year := b.At.Year(); year < 2000 || year > 9999 {
		return fmt.Errorf("%w: it is from the year %d", ErrBatch, year)
	}
	for _, e := range b.Entries {
		if e.Account == "" || len(e.Account) > MaxName {
			return fmt.Errorf("%w: an account's name of %d bytes", ErrBatch, len(e.Account))
		}
		if e.Seq <= 0 || e.Sent < 0 || e.Received < 0 || e.Connections < 0 {
			return fmt.Errorf("%w: account %q has a figure below 0, or no number", ErrBatch, e.Account)
		}
	}
	return nil
}
