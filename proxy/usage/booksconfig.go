package usage

import "time"

// BooksConfig says what Books keep and whom they tell. Meter, Ledger and Node are needed.
type BooksConfig struct {
	// Meter is what is booked; only one Books may have it.
	Meter *Meter
	// Ledger is where; Books do not close it.
	Ledger Ledger
	// Node names the relay and this start of it: no other process, earlier ones included, may
	// have had the same.
	Node string
	// Quota returns an account's quota in force; false for an account that is not known. It is
	// called often and must be quick. Nil = nobody has one.
	Quota func(name string) (Quota, bool)
	// InUse reports whether the account has open connections here: those with a quota are
	// watched for what other relays book even while nothing moves here. Nil = those that were
	// asked for or moved something in the last ten minutes.
	InUse func(name string) bool
	// Exhausted is called when an account's quota is newly used up, and again while it moves
	// bytes all the same: its connections are to be closed. One call at a time; may be nil.
	Exhausted func(name string)
	// Crossed is told of each crossing of a quota, once in the fleet. One call at a time, which
	// must not block; may be nil.
	Crossed func(Event)
	// Trouble is told why booking fails when it begins to, and nil when it works again. One
	// call at a time; may be nil.
	Trouble func(error)
	// Now is the clock; nil = time.Now.
	Now func() time.Time
}
