package redislimit

import (
	"context"
	_ "embed" // the script
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"maskrelay/proxy/fleet"
	"maskrelay/proxy/limit"
)

const (
	// shareTTL is how long a demand and a share count when they are not renewed: a relay
	// that asks every second may miss two times, and what a dead one had is free soon.
	shareTTL = 3500 * time.Millisecond
	// shareTrust is how long a relay that gets no answer keeps to the last one: while the
	// others still reckon with it.
	shareTrust = shareTTL - 500*time.Millisecond
	// shareBatch bounds a pipeline, in keys: Redis serves it in a few milliseconds.
	shareBatch = 250
	// shareTimeout bounds a pipeline; no customer waits for it.
	shareTimeout = 4 * fleet.CallTimeout
	// shareMemory bounds the answers that are remembered, in keys.
	shareMemory = 200_000
	// shareLargest is the highest bandwidth told to Redis, whose scripts count in float64.
	shareLargest = 1 << 50
)

//go:embed shares.lua
var shareSource string

var shareScript = redis.NewScript(shareSource)

// Shares divides bandwidths among the relays of a fleet by their demands: max-min fair,
// each direction by itself, on Redis's clock. What a relay does not want is the others'.
// A relay gets more only when the others have let go of it, which they do when they ask
// next, so that the shares in use add up to the bandwidth but for about a second after
// relays have come to a key.
//
// Without an answer a relay keeps its share for 3 seconds, and then has the bandwidth
// divided by the number of relays that were alive. Safe for concurrent use.
type Shares struct {
	client *fleet.Client

	mu     sync.Mutex // guards what follows
	last   map[string]shareAnswer
	pruned time.Time // when last was rid of what is too old
}

// shareAnswer is what Redis said of one key.
type shareAnswer struct {
	bandwidth int64
	shares    [2]int64
	at        time.Time // when it was asked
}

// NewShares divides through client's Redis.
func NewShares(client *fleet.Client) *Shares {
	return &Shares{client: client, last: make(map[string]shareAnswer)}
}

// Divide implements [limit.Shares]: one pipeline for every 250 demands. Keys that Redis
// answers with an error, or not at all, have their shares without an answer; the others' count.
func (s *Shares) Divide(ctx context.Context, demands []limit.Demand) ([][2]int64, error) {
	shares := make([][2]int64, len(demands))
	var failed error
	for from := 0; from < len(demands); from += shareBatch {
		to := min(from+shareBatch, len(demands))
		switch {
		case ctx.Err() == nil && s.client.Up() && !errors.Is(failed, limit.ErrUnanswered):
			start := time.Now()
			if err := s.ask(ctx, demands[from:to], shares[from:to]); err != nil {
				failed = err
			}
			s.remember(demands[from:to], shares[from:to], start)
		case failed == nil:
			failed = fmt.Errorf("redislimit: shares: %w", limit.ErrUnanswered)
		}
	}
	s.fill(demands, shares)
	return shares, failed
}

// ask has Redis divide one batch. Loading the script, which is for once, costs a second try.
func (s *Shares) ask(ctx context.Context, batch []limit.Demand, shares [][2]int64) error {
	ctx, cancel := context.WithTimeout(ctx, shareTimeout)
	defer cancel()
	err := s.pipeline(ctx, batch, shares)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		if err = shareScript.Load(ctx, s.client.Redis()).Err(); err == nil {
			err = s.pipeline(ctx, batch, shares)
		}
	}
	var answer redis.Error
	switch {
	case err == nil || errors.Is(err, errShareAnswer):
		return err
	case errors.As(err, &answer):
		return fmt.Errorf("redislimit: shares: %w", fleet.Explain(err))
	default:
		return fmt.Errorf("redislimit: shares: %w: %w", limit.ErrUnanswered, fleet.Explain(err))
	}
}

var errShareAnswer = errors.New("redislimit: the shares' script's answer has not its form")

// pipeline asks once. Shares without an answer stay as they are, and the first error is theirs.
func (s *Shares) pipeline(ctx context.Context, batch []limit.Demand, shares [][2]int64) error {
	pipe := s.client.Redis().Pipeline()
	relays := s.client.Relays()
	for _, d := range batch {
		shareScript.EvalSha(ctx, pipe, []string{s.client.Key("bandwidth", d.Key)}, s.client.Node(),
			min(d.Bandwidth, shareLargest), shareWanted(d, 0), shareWanted(d, 1), relays, shareTTL.Milliseconds())
	}
	cmds, failed := pipe.Exec(ctx)
	for i, cmd := range cmds {
		values, err := cmd.(*redis.Cmd).Int64Slice()
		switch {
		case err == nil && len(values) == 2 && values[0] > 0 && values[1] > 0:
			shares[i] = [2]int64(values)
		case cmd.Err() == nil && failed == nil:
			failed = errShareAnswer
		}
	}
	return failed
}

func shareWanted(d limit.Demand, way int) int64 {
	if d.Gone {
		return -1
	}
	return min(max(d.Wanted[way], 0), d.Bandwidth, shareLargest)
}

// remember keeps the answers for when there are none.
func (s *Shares) remember(batch []limit.Demand, shares [][2]int64, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.Sub(s.pruned) > shareTrust {
		s.pruned = at
		for key, one := range s.last {
			if at.Sub(one.at) > shareTrust {
				delete(s.last, key)
			}
		}
	}
	for i, d := range batch {
		if _, known := s.last[d.Key]; shares[i] != [2]int64{} && (known || len(s.last) < shareMemory) {
			s.last[d.Key] = shareAnswer{d.Bandwidth, shares[i], at}
		}
	}
}

// fill sets the shares that have no answer.
func (s *Shares) fill(demands []limit.Demand, shares [][2]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, relays := time.Now(), int64(s.client.Relays())
	for i, d := range demands {
		if shares[i] != [2]int64{} {
			continue
		}
		alone := max(d.Bandwidth/relays, 1)
		shares[i] = [2]int64{alone, alone}
		if last, known := s.last[d.Key]; known && now.Sub(last.at) < shareTrust {
			for way := range shares[i] {
				shares[i][way] = shareScaled(last.shares[way], d.Bandwidth, last.bandwidth)
			}
		}
	}
}

// shareScaled is the share of a bandwidth that has changed, at least 1.
func shareScaled(share, bandwidth, before int64) int64 {
	high, low := bits.Mul64(uint64(max(share, 0)), uint64(max(bandwidth, 0)))
	if before <= 0 || high >= uint64(before) {
		return max(bandwidth, 1)
	}
	scaled, _ := bits.Div64(high, low, uint64(before))
	return max(int64(min(scaled, uint64(max(bandwidth, 1)))), 1)
}
