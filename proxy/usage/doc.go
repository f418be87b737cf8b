// Package usage counts what each account moves, books it where it outlives the process, and
// says when an account's quota is used up.
//
//	meter := usage.NewMeter()
//	books := usage.NewBooks(usage.BooksConfig{Meter: meter, Ledger: ledger, Node: node, Quota: quotaOf})
//	go books.Run(ctx)
//	c := meter.Of("alice")  // once per connection
//	if c.Exhausted() { … }  // 402
//	c.Opened()
//	c.Moved(true, n)        // for each piece that passes
//
// A [Counter] only adds. Every two seconds [Books] takes what was added since the last time to
// a [Ledger] as one numbered entry per account; the ledger adds an entry once, however often it
// is told, so that a lost answer neither loses nor doubles a byte. A process that is killed loses
// what it had not booked.
//
// Ledgers are a local file ([OpenFile]), memory ([NewMemory]), and, for a fleet, package
// redisusage. Names are plain strings here; nothing of them is looked at.
package usage
