package redislimit

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"maskrelay/proxy/fleet"
)

const (
	workers    = 4
	batchMax   = 128
	rounds     = 16          // in which all shards are looked at
	lookEvery  = time.Second // at each shard, or more often if leases are short
	goodbye    = time.Second // for giving everything back at the end
	goodbyeMax = 1024        // fields in one pipeline
	// marksPerLife is how often the mark is left anew in the time that it lives.
	marksPerLife = 4
)

// errStopped is the answer to whoever waits when Run ends.
var errStopped = errors.New("redislimit: the limiter has ended")

// job is a question to Redis.
type job interface {
	script() *redis.Script
	// request is called once, right before the question is sent; the script has one key.
	request() (key string, args []any)
	// settle is called once with the answer.
	settle(answer any, err error)
}

// Run carries all questions to Redis, renews what is leased and gives back what is not used, until ctx ends. Then it gives
// everything back, within a second, and returns when its goroutines have ended. It is called once; without it every
// question counts as one that Redis did not answer.
func (l *Limiter) Run(ctx context.Context) {
	var all sync.WaitGroup
	for range workers {
		all.Go(func() { l.serve(ctx) })
	}
	all.Go(func() { l.tend(ctx) })
	all.Wait()
	l.stopped.Store(true)
	for {
		select {
		case j := <-l.asks:
			j.settle(nil, errStopped)
			continue
		default:
		}
		break
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	l.giveBack(last)
}

// serve sends what is asked, all that waits in one pipeline.
func (l *Limiter) serve(ctx context.Context) {
	batch := make([]job, 0, batchMax)
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-l.asks:
			batch = append(batch[:0], j)
		}
		for more := true; more && len(batch) < batchMax; {
			select {
			case j := <-l.asks:
				batch = append(batch, j)
			default:
				more = false
			}
		}
		l.send(ctx, batch)
		clear(batch)
	}
}

// send asks the questions of a batch in one trip, or in a second one for scripts that Redis does not know yet.
func (l *Limiter) send(ctx context.Context, batch []job) {
	ctx, cancel := context.WithTimeout(ctx, fleet.CallTimeout)
	defer cancel()
	type question struct {
		key  string
		args []any
		cmd  *redis.Cmd
	}
	questions := make([]question, len(batch))
	pipe := l.config.Client.Redis().Pipeline()
	for i, j := range batch {
		q := &questions[i]
		q.key, q.args = j.request()
		q.cmd = j.script().EvalSha(ctx, pipe, []string{q.key}, q.args...)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	again := l.config.Client.Redis().Pipeline()
	for i, j := range batch {
		if q := &questions[i]; redis.HasErrorPrefix(q.cmd.Err(), "NOSCRIPT") {
			q.cmd = j.script().Eval(ctx, again, []string{q.key}, q.args...)
		}
	}
	if again.Len() > 0 {
		_, _ = again.Exec(ctx)
	}
	for i, j := range batch {
		answer, err := questions[i].cmd.Result()
		j.settle(answer, err)
	}
}

// tend looks after all keys: renewals, giving back, forgetting, and registering again when Redis is back.
func (l *Limiter) tend(ctx context.Context) {
	tick := time.NewTicker(max(min(lookEvery, l.config.Renew/4)/rounds, time.Millisecond))
	defer tick.Stop()
	var back comeback
	var markAt time.Duration
	for round := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-l.again:
			l.settling.Store(true)
			back.registered = false
			l.comeBack(ctx, &back)
			continue
		case <-tick.C:
		}
		l.comeBack(ctx, &back)
		if now := l.sinceStart(); now >= markAt && (l.online() || back.registered) {
			if l.mark(ctx) == markGone {
				l.settling.Store(true)
				back = comeback{settled: now + settleTime}
			}
			markAt = now + l.markLife()/marksPerLife
		}
		l.tendShards(ctx, round)
		round = (round + 1) % rounds
	}
}

// comeback is how far a return of Redis has been dealt with.
type comeback struct {
	registered bool
	settled    time.Duration // when the others have had the time to register too
}

// comeBack leads from the policy back to asking Redis: at once if that still knows the leases, else when every relay has
// had the time to tell it what it carries. A further loss or return meanwhile shortens that time for nobody.
func (l *Limiter) comeBack(ctx context.Context, b *comeback) {
	switch {
	case !l.config.Client.Up():
		l.settling.Store(true)
		b.registered = false
		return
	case !l.settling.Load():
		l.peers.Store(int64(l.config.Client.Relays()))
		return
	case !b.registered:
		if l.mark(ctx) != markThere {
			b.settled = l.sinceStart() + settleTime
		}
		if l.sinceStart() >= b.settled {
			l.settle()
		}
		b.registered = l.register(ctx)
	}
	if b.registered && l.sinceStart() >= b.settled {
		l.settle()
		*b = comeback{}
	}
}

// tendShards looks at each key of some shards and tells Redis what is due.
func (l *Limiter) tendShards(ctx context.Context, round int) {
	online := l.online()
	var jobs []job
	for i := round; i < shardCount; i += rounds {
		jobs = append(jobs, l.shards[i].collect(func(e *entry, now time.Duration) (purpose, bool) {
			if !online {
				return 0, false
			}
			return e.tendLocked(now)
		})...)
	}
	l.sendAll(ctx, jobs)
}

// collect begins a flight for each key for which due says so, and forgets keys that are not needed.
func (s *shard) collect(due func(e *entry, now time.Duration) (purpose, bool)) []job {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.limiter.now()
	var jobs []job
	for _, e := range s.entries {
		if p, ok := due(e, now); ok {
			e.flight = &call{e: e, purpose: p, done: make(chan struct{})}
			jobs = append(jobs, e.flight)
		} else if s.idleLen > idleKept && e.spareLocked(now) {
			s.removeLocked(e)
		}
	}
	return jobs
}

func (l *Limiter) sendAll(ctx context.Context, jobs []job) {
	for len(jobs) > 0 {
		n := min(len(jobs), batchMax)
		l.send(ctx, jobs[:n])
		jobs = jobs[n:]
	}
}

// register tells Redis at once everything that is held here, and reports whether it could.
func (l *Limiter) register(ctx context.Context) bool {
	for i := range l.shards {
		if !l.config.Client.Up() {
			return false
		}
		l.sendAll(ctx, l.shards[i].collect(func(e *entry, _ time.Duration) (purpose, bool) {
			return forRenewal, e.flight == nil && (e.inUse > 0 || e.registered)
		}))
	}
	return l.config.Client.Up()
}

// markState is what became of the mark of this relay that was left before.
type markState int

const (
	markThere markState = iota // or there was none
	markGone
	markUnknown // Redis did not answer
)

// mark leaves a mark of this relay in Redis and tells whether the one before is still there: whether Redis remembers what it was told.
func (l *Limiter) mark(ctx context.Context) markState {
	ctx, cancel := context.WithTimeout(ctx, fleet.CallTimeout)
	defer cancel()
	pipe := l.config.Client.Redis().Pipeline()
	before := pipe.Get(ctx, l.markKey())
	set := pipe.Set(ctx, l.markKey(), 1, l.markLife())
	_, _ = pipe.Exec(ctx) // each command has its own error
	state := markThere
	switch err := before.Err(); {
	case err == nil || !l.marked.Load():
	case errors.Is(err, redis.Nil):
		state = markGone
	default:
		state = markUnknown
	}
	if set.Err() == nil {
		l.marked.Store(true)
	}
	return state
}

// markLife is how long the mark lives that is not left anew: less than any lease does that was renewed as it should be, so that no
// lease has run out, of no relay, during an absence of Redis that the mark outlives.
func (l *Limiter) markLife() time.Duration { return l.config.TTL / 2 }

func (l *Limiter) markKey() string { return l.config.Client.Key("cap-relay", l.config.Client.Node()) }

// giveBack takes this relay's leases out of Redis.
func (l *Limiter) giveBack(ctx context.Context) {
	if !l.config.Client.Up() {
		return
	}
	client := l.config.Client
	pipe := client.Redis().Pipeline()
	pipe.Del(ctx, l.markKey())
	flush := func() bool {
		_, err := pipe.Exec(ctx)
		pipe = client.Redis().Pipeline()
		return err == nil
	}
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for key, e := range s.entries {
			if e.registered {
				pipe.HDel(ctx, client.Key("cap", key), client.Node())
			}
		}
		s.mu.Unlock()
		if pipe.Len() >= goodbyeMax && !flush() {
			return
		}
	}
	if pipe.Len() > 0 {
		flush()
	}
}
