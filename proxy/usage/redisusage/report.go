package redisusage

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"maskrelay/proxy/usage"
)

// Totals implements usage.Ledger, 500 accounts at a time; the month is the one that Redis is in.
func (l *Ledger) Totals(ctx context.Context, names []string) ([]usage.Total, error) {
	if !l.up() {
		return nil, ErrDown
	}
	now, err := l.now(ctx)
	if err != nil {
		return nil, err
	}
	totals := make([]usage.Total, 0, len(names))
	var refused error
	for len(names) > 0 {
		some := names[:min(len(names), perPipeline)]
		names = names[len(some):]
		pipe := l.redis.Pipeline()
		answers := make([]*redis.StringCmd, len(some))
		for i, name := range some {
			answers[i] = pipe.HGet(ctx, l.client.Key(usageKey, name), "now")
		}
		if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) && !isRefusal(err) {
			return totals, fmt.Errorf("redisusage: totals: %w", err)
		}
		for i, name := range some {
			running, err := readRunning(name, answers[i])
			if err != nil {
				refused = errors.Join(refused, err)
				continue
			}
			totals = append(totals, running.total(name, usage.Months.Index(now)))
		}
	}
	return totals, refused
}

// running is the field "now": the sums of all time, and of the hour, day and month it is in.
type running struct {
	all   usage.Sums
	index [usage.AllTime]int64
	sums  [usage.AllTime]usage.Sums
}

// readRunning reads it; an account without one has moved nothing.
func readRunning(account string, answer *redis.StringCmd) (running, error) {
	text, err := answer.Result()
	if errors.Is(err, redis.Nil) {
		return running{}, nil
	}
	if err != nil {
		return running{}, fmt.Errorf("redisusage: account %q: %w", account, err)
	}
	return parseRunning(account, text)
}

// parseRunning reads the figures as book.lua keeps them.
func parseRunning(account string, value any) (running, error) {
	var n running
	r := figures(value)
	n.all = r.sums()
	for g := range n.index {
		n.index[g] = r.number()
	}
	for g := range n.sums {
		before := r.sums()
		n.sums[g] = usage.Sums{
			Sent:        max(n.all.Sent-before.Sent, 0),
			Received:    max(n.all.Received-before.Received, 0),
			Connections: max(n.all.Connections-before.Connections, 0),
		}
	}
	return n, r.end(account)
}

// figures reads a text of several, which may be missing.
func figures(value any) *reader {
	var r reader
	text, ok := value.(string)
	r.bad = !ok
	for figure := range strings.FieldsSeq(text) {
		r.list = append(r.list, figure)
	}
	return &r
}

func (n running) total(account string, month int64) usage.Total {
	t := usage.Total{Account: account, All: n.all, Month: usage.Months.Name(month)}
	if n.index[usage.Months] == month {
		t.InMonth = n.sums[usage.Months]
	}
	return t
}

// Report implements usage.Ledger. All accounts are read 500 at a time, each at a moment of its own.
func (l *Ledger) Report(ctx context.Context, q usage.Query) ([]usage.Row, error) {
	now, err := l.now(ctx)
	if err != nil {
		return nil, err
	}
	if q.Account != "" {
		return l.rows(ctx, []string{q.Account}, q, now)
	}
	var rows []usage.Row
	seen := make(map[string]struct{}) // SSCAN may tell a name twice
	for cursor := uint64(0); ; {
		var names []string
		names, cursor, err = l.redis.SScan(ctx, l.accounts(), cursor, "", perPipeline).Result()
		if err != nil {
			return nil, fmt.Errorf("redisusage: accounts: %w", err)
		}
		fresh := names[:0]
		for _, name := range names {
			if _, was := seen[name]; !was {
				seen[name] = struct{}{}
				fresh = append(fresh, name)
			}
		}
		some, err := l.rows(ctx, fresh, q, now)
		if err != nil {
			return nil, err
		}
		rows = append(rows, some...)
		if cursor == 0 || len(seen) > 2*usage.MaxNames {
			break
		}
	}
	usage.SortRows(rows)
	return rows, nil
}

// rows returns the rows of the names that moved something, or that were asked for.
func (l *Ledger) rows(ctx context.Context, names []string, q usage.Query, now time.Time) ([]usage.Row, error) {
	grain, first := usage.Cover(q.Since, now)
	fields := pastFields(grain, first, now)
	answers, err := l.run(ctx, rowScript, len(names), func(i int) ([]string, []any) { return l.keys(names[i]), fields })
	if err != nil {
		return nil, fmt.Errorf("redisusage: report: %w", err)
	}
	rows := make([]usage.Row, 0, len(names))
	for i, name := range names {
		row := usage.Row{Account: name, From: grain.Start(first), To: now.UTC()}
		if row.Sums, err = readRow(name, answers[i], grain, first); err != nil {
			return nil, fmt.Errorf("redisusage: report: %w", err)
		}
		if row.Sums != (usage.Sums{}) || name == q.Account {
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// pastFields are the fields of the past that a report may need: those from first to now, and
// one more, which a relay whose clock is ahead may have begun.
func pastFields(g usage.Grain, first int64, now time.Time) []any {
	if g == usage.AllTime {
		return nil
	}
	letter := [usage.AllTime]string{usage.Hours: "h", usage.Days: "d", usage.Months: "m"}[g]
	var fields []any
	for i := first; i <= g.Index(now)+1; i++ {
		fields = append(fields, letter+strconv.FormatInt(i, 10))
	}
	return fields
}

// readRow adds up row.lua's answer.
func readRow(account string, answer *redis.Cmd, g usage.Grain, first int64) (usage.Sums, error) {
	list, err := answer.Slice()
	if err != nil {
		return usage.Sums{}, fmt.Errorf("account %q: %w", account, err)
	}
	if len(list) == 0 || list[0] == nil {
		return usage.Sums{}, nil
	}
	n, err := parseRunning(account, list[0])
	if err != nil || g == usage.AllTime {
		return n.all, err
	}
	var s usage.Sums
	if n.index[g] >= first {
		s = n.sums[g]
	}
	past, ok := list[len(list)-1].([]any)
	if !ok {
		return s, fmt.Errorf("account %q: %w", account, errDamaged)
	}
	for _, bucket := range past {
		if bucket == nil {
			continue
		}
		r := figures(bucket)
		s = s.Plus(r.sums())
		if err := r.end(account); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (l *Ledger) accounts() string { return l.client.Key(accountsKey, accountsOf) }

// notIndexed returns the accounts that this relay has not yet put into the set.
func (l *Ledger) notIndexed(entries []usage.Entry) (names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range entries {
		if _, is := l.indexed[e.Account]; !is {
			names = append(names, e.Account)
		}
	}
	return names
}

// index puts accounts into the set, before they are booked, so that none is booked without.
func (l *Ledger) index(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	members := make([]any, len(names))
	for i, name := range names {
		members[i] = name
	}
	if err := l.redis.SAdd(ctx, l.accounts(), members...).Err(); err != nil {
		return fmt.Errorf("redisusage: accounts: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.indexed) > usage.MaxNames {
		clear(l.indexed)
	}
	for _, name := range names {
		l.indexed[name] = struct{}{}
	}
	return nil
}

// forget has the accounts put into the set again with their next booking.
func (l *Ledger) forget(names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range names {
		delete(l.indexed, name)
	}
}
