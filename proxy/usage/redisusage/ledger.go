package redisusage

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"maskrelay/proxy/fleet"
	"maskrelay/proxy/usage"
)

const (
	usageKey    = "usage"
	pastKey     = "usage-past"
	accountsKey = "usage-accounts" // of the one name below
	accountsOf  = "all"

	perPipeline = 500
	// waitTime bounds one pipeline. It is longer than a customer's calls may take: nobody waits
	// for it but the booking.
	waitTime = time.Second
	// clockSlack is how far a relay's clock may be off before Redis's is taken.
	clockSlack = 5 * time.Minute
)

var (
	//go:embed book.lua
	bookSource string
	//go:embed row.lua
	rowSource string

	bookScript = redis.NewScript(bookSource)
	rowScript  = redis.NewScript(rowSource)

	// ErrDown is what Book and Totals return at once while Redis is known to be down.
	ErrDown = errors.New("redisusage: Redis is down")
)

// Ledger is a usage.Ledger in the Redis of a fleet. Safe for concurrent use; it has no goroutine.
type Ledger struct {
	client *fleet.Client
	redis  redis.UniversalClient
	up     func() bool                              // the client's
	now    func(context.Context) (time.Time, error) // Redis's clock

	mu      sync.Mutex // guards indexed
	indexed map[string]struct{}
}

// New returns the ledger that all relays with the same Redis and prefix share. The client stays
// the caller's.
func New(client *fleet.Client) *Ledger {
	l := &Ledger{client: client, redis: client.Redis(), indexed: make(map[string]struct{})}
	if c, ok := l.redis.(*redis.Client); ok {
		l.redis = c.WithTimeout(waitTime) // the same connections
	}
	l.up, l.now = client.Up, l.time
	return l
}

func (l *Ledger) time(ctx context.Context) (time.Time, error) {
	t, err := l.redis.Time(ctx).Result()
	if err != nil {
		return t, fmt.Errorf("redisusage: time: %w", err)
	}
	return t, nil
}

// Close implements usage.Ledger. The client lives on.
func (l *Ledger) Close() error { return nil }

// Book implements usage.Ledger, 500 entries at a time. An account that Redis refuses is in the
// error and does not hold up the others.
func (l *Ledger) Book(ctx context.Context, b usage.Batch) ([]usage.Total, error) {
	if err := b.Check(); err != nil {
		return nil, err
	}
	if !l.up() {
		return nil, ErrDown
	}
	now, err := l.now(ctx)
	if err != nil {
		return nil, err
	}
	if off := b.At.Sub(now); off > clockSlack || off < -clockSlack {
		b.At = now
	}
	totals := make([]usage.Total, 0, len(b.Entries))
	var refused error
	for entries := b.Entries; len(entries) > 0; {
		b.Entries = entries[:min(len(entries), perPipeline)]
		entries = entries[len(b.Entries):]
		some, err := l.bookSome(ctx, b)
		totals = append(totals, some...)
		if err != nil && !isRefusal(err) {
			return totals, err
		}
		refused = errors.Join(refused, err)
	}
	return totals, refused
}

// bookSome books what fits in one pipeline.
func (l *Ledger) bookSome(ctx context.Context, b usage.Batch) ([]usage.Total, error) {
	if err := l.index(ctx, l.notIndexed(b.Entries)); err != nil {
		return nil, err
	}
	times := fmt.Sprint(usage.Hours.Index(b.At), usage.Days.Index(b.At), usage.Months.Index(b.At))
	answers, err := l.run(ctx, bookScript, len(b.Entries), func(i int) ([]string, []any) {
		e := b.Entries[i]
		return l.keys(e.Account), arguments(b, times, e)
	})
	if err != nil {
		return nil, fmt.Errorf("redisusage: book: %w", err)
	}
	totals := make([]usage.Total, 0, len(b.Entries))
	var begun []string
	var refused error
	for i, answer := range answers {
		t, isNew, err := readTotal(b.Entries[i].Account, answer)
		if err != nil {
			refused = errors.Join(refused, err)
			continue
		}
		if isNew {
			begun = append(begun, t.Account)
		}
		totals = append(totals, t)
	}
	// An account that Redis did not have may be missing in the set too, if it was emptied.
	if err := l.index(ctx, begun); err != nil {
		l.forget(begun)
	}
	return totals, refused
}

func (l *Ledger) keys(account string) []string {
	return []string{l.client.Key(usageKey, account), l.client.Key(pastKey, account)}
}

// arguments are those of book.lua.
func arguments(b usage.Batch, times string, e usage.Entry) []any {
	args := make([]any, 0, 13)
	args = append(args, b.Node, e.Seq, b.At.Unix(), times,
		e.Sent, e.Received, e.Connections, string(e.Quota.Period), max(e.Quota.Bytes, 0))
	if e.Quota.Bytes > 0 {
		for _, percent := range usage.Crossings {
			args = append(args, percent, e.Quota.Mark(percent))
		}
	}
	return args
}

// run runs the script n times in one pipeline and returns the answers, each with its own error
// if Redis refused it; the error is that Redis did not answer. A script that Redis does not know
// is loaded and all are run again: the ledger's scripts may be.
func (l *Ledger) run(ctx context.Context, s *redis.Script, n int, of func(i int) ([]string, []any)) ([]*redis.Cmd, error) {
	for again := false; ; again = true {
		answers := make([]*redis.Cmd, n)
		pipe := l.redis.Pipeline()
		for i := range n {
			keys, args := of(i)
			answers[i] = s.EvalSha(ctx, pipe, keys, args...)
		}
		_, err := pipe.Exec(ctx)
		if err != nil && !isRefusal(err) {
			return nil, err
		}
		if again || !unknownScript(answers) {
			return answers, nil
		}
		if err := s.Load(ctx, l.redis).Err(); err != nil {
			return nil, err
		}
	}
}

func unknownScript(answers []*redis.Cmd) bool {
	for _, a := range answers {
		if err := a.Err(); errors.Is(err, redis.ErrNoScript) || redis.HasErrorPrefix(err, "NOSCRIPT") {
			return true
		}
	}
	return false
}

// isRefusal reports whether Redis itself said no, so that the command was not lost on the way.
func isRefusal(err error) bool {
	var refusal redis.Error
	return errors.As(err, &refusal) || errors.Is(err, redis.ErrNoScript)
}

// readTotal reads book.lua's answer; its error says whose it is.
func readTotal(account string, answer *redis.Cmd) (t usage.Total, isNew bool, err error) {
	list, err := answer.Slice()
	if err != nil {
		return t, false, fmt.Errorf("account %q: %w", account, err)
	}
	var r reader
	if len(list) > 0 {
		r.list = list[1:]
	}
	isNew = r.number() == 1
	var crossed []int64
	for len(r.list) > 0 {
		crossed = append(crossed, r.number())
	}
	if err := r.end(account); err != nil {
		return t, false, err
	}
	n, err := parseRunning(account, list[0])
	// The month is the newest one booked, so that a relay whose clock is a little behind at the
	// turn counts with the others.
	t = n.total(account, n.index[usage.Months])
	t.Crossed = crossed
	return t, isNew, err
}

// reader takes figures from an answer of a script.
type reader struct {
	list []any
	bad  bool
}

func (r *reader) number() int64 {
	if len(r.list) == 0 {
		r.bad = true
		return 0
	}
	first := r.list[0]
	r.list = r.list[1:]
	switch v := first.(type) {
	case int64:
		return v
	case string:
		if n, err := strconv.ParseInt(v, 10, 64); err == nil && n >= 0 {
			return n
		}
	}
	r.bad = true
	return 0
}

func (r *reader) sums() usage.Sums {
	return usage.Sums{Sent: r.number(), Received: r.number(), Connections: r.number()}
}

func (r *reader) end(account string) error {
	if r.bad || len(r.list) > 0 {
		return fmt.Errorf("account %q: %w", account, errDamaged)
	}
	return nil
}

// damaged is an error as if Redis had refused, so that it holds up one account only.
type damaged struct{}

func (damaged) Error() string { return "what Redis has of it is damaged" }
func (damaged) RedisError()   {}

var errDamaged redis.Error = damaged{}
