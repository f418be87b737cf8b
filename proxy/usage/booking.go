package usage

import (
	"context"
	"errors"
	"time"
)

// book tells the ledger what it does not have. What it does not answer for waits as it is.
func (b *Books) book(ctx context.Context) error {
	release, err := b.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	for from := 0; ; {
		batch := Batch{Node: b.config.Node, At: b.config.Now()}
		if batch.Entries, from = b.dueFrom(from, batch.At); len(batch.Entries) == 0 {
			return err
		}
		totals, failure := b.bookBatch(ctx, batch)
		b.counts.booked(len(totals), len(batch.Entries)-len(totals))
		err = errors.Join(err, failure)
		if failure != nil && len(totals) == 0 {
			return err // it is the ledger, not one of the accounts
		}
	}
}

// dueFrom collects entries from that page on, and says which page is next.
func (b *Books) dueFrom(from int, now time.Time) ([]Entry, int) {
	var entries []Entry
	b.mu.Lock()
	defer b.mu.Unlock()
	for ; from < len(b.pages) && len(entries) < maxEntries; from++ {
		if e := b.pages[from].due(now); e != nil {
			entries = append(entries, *e)
		}
	}
	return entries, from
}

// bookBatch tells the ledger, and then whoever must know of crossings.
func (b *Books) bookBatch(ctx context.Context, batch Batch) ([]Total, error) {
	ctx, cancel := context.WithTimeout(ctx, ledgerTime)
	totals, err := b.config.Ledger.Book(ctx, batch)
	cancel()
	var events []Event
	b.mu.Lock()
	for _, t := range totals {
		if p := b.byName[t.Account]; p != nil {
			events = append(events, p.acknowledge(t, batch.At)...)
		}
	}
	b.mu.Unlock()
	if b.config.Crossed != nil {
		for _, e := range events {
			b.config.Crossed(e)
		}
	}
	return totals, err
}

// learnTotals asks the ledger for the totals that count against a quota and are not known
// here; with poll also for those that other relays may have added to.
func (b *Books) learnTotals(ctx context.Context, poll bool) (failed error) {
	names := b.toLearn(poll)
	for len(names) > 0 {
		some := names[:min(len(names), maxEntries)]
		names = names[len(some):]
		at := b.config.Now()
		call, cancel := context.WithTimeout(ctx, ledgerTime)
		totals, err := b.config.Ledger.Totals(call, some)
		cancel()
		b.mu.Lock()
		for _, t := range totals {
			if p := b.byName[t.Account]; p != nil {
				p.learn(t, at)
			}
		}
		b.mu.Unlock()
		failed = errors.Join(failed, err)
		if err != nil && len(totals) == 0 {
			return failed // it is the ledger, not one of the accounts
		}
	}
	return failed
}

// toLearn returns whose totals are to be read: none that has an entry on its way, of which it
// is not certain whether the total has it.
func (b *Books) toLearn(poll bool) (names []string) {
	var idle []string
	b.mu.Lock()
	now := b.config.Now()
	for _, p := range b.pages {
		switch unused := now.Sub(p.used); {
		case p.quota.Bytes <= 0 || p.pending != nil:
		case !p.known:
			names = append(names, p.name)
		case !poll || now.Sub(p.since) < pollAge:
		case unused < usedJustNow:
			names = append(names, p.name)
		case b.config.InUse != nil || unused < usedLately:
			idle = append(idle, p.name)
		}
	}
	b.mu.Unlock()
	for _, name := range idle {
		if b.config.InUse == nil || b.config.InUse(name) {
			names = append(names, name)
		}
	}
	return names
}

// Report returns the ledger's rows with what is not booked yet on this relay: what is not on
// its way to the ledger at the time. An entry that the ledger did not answer for is taken as not
// booked. It waits for a booking that is under way; it takes no longer than five seconds.
func (b *Books) Report(ctx context.Context, q Query) ([]Row, error) {
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	release, err := b.hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	rows, err := b.config.Ledger.Report(ctx, q)
	if err != nil {
		return nil, err
	}
	b.open()
	place := make(map[string]int, len(rows))
	for i, r := range rows {
		place[r.Account] = i
	}
	now := b.config.Now()
	grain, first := Cover(q.Since, now)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.pages {
		s := p.unbooked()
		if s == (Sums{}) || q.Account != "" && q.Account != p.name {
			continue
		}
		if i, ok := place[p.name]; ok {
			rows[i].Sums = rows[i].Plus(s)
			continue
		}
		rows = append(rows, Row{Account: p.name, Sums: s, From: grain.Start(first), To: now.UTC()})
	}
	SortRows(rows)
	return rows, nil
}
