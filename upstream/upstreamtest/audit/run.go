package audit

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"maskrelay/upstream/upstreamtest"
)

// Run plays the whole matrix and judges it. It returns when all that it started has ended;
// the error is ctx's, or says what could not be started. It is no error that the mask has
// holes: the report says so.
func Run(ctx context.Context, c Config) (*Report, error) {
	if len(c.Subjects) == 0 {
		return nil, errNoSubject
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	r := &run{config: &c, ledger: newLedger(), verdicts: make(chan verdict)}
	defer r.closeStages()
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	var playing sync.WaitGroup
	for _, t := range r.troupes {
		for _, st := range t.stages {
			playing.Go(func() { r.play(ctx, t, st) })
		}
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		playing.Wait()
		close(r.verdicts)
	}()
	done := 0
	for v := range r.verdicts {
		r.ledger.add(v)
		if done++; c.Progress != nil {
			c.Progress(done, r.total)
		}
	}
	<-over
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return r.ledger.finish(time.Since(began)), nil
}

// run is one audit under way.
type run struct {
	config   *Config
	ledger   *ledger
	verdicts chan verdict
	total    int

	troupes []*troupe
}

// troupe are the stages of one subject and scheme, and what they play together: either the
// cases that are over only when the relay's patience is, or all others.
type troupe struct {
	subject int
	scheme  string
	hasty   bool
	list    []upstreamtest.Hostility
	stages  []*stage

	mu   sync.Mutex // guards next
	next int        // of list
}

// take returns the next case of the list, nil at the end.
func (t *troupe) take() *upstreamtest.Hostility {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next == len(t.list) {
		return nil
	}
	t.next++
	return &t.list[t.next-1]
}

var schemes = []string{HTTP, HTTPS, SOCKS5}

// prepare lays out what is played, and starts the stages for it.
func (r *run) prepare(ctx context.Context) error {
	each := r.config.Stages
	if each <= 0 {
		each = defaultStages
	}
	subjects := r.config.Subjects
	each = max((each+len(subjects)-1)/len(subjects), 1)
	var mu sync.Mutex // guards errs and stages
	var errs []error
	var starting sync.WaitGroup
	for _, t := range r.layOut() {
		r.troupes = append(r.troupes, t)
		for range min(each, len(t.list)) {
			starting.Go(func() {
				st, err := newStage(r.config, &subjects[t.subject], t)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					errs = append(errs, err)
					return
				}
				t.stages = append(t.stages, st)
			})
		}
	}
	starting.Wait()
	if err := errors.Join(errs...); err != nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	for _, t := range r.troupes {
		for _, h := range t.list {
			r.total += len(waysOf(h.Ways)) * len(t.stages[0].listeners())
		}
	}
	return nil
}

// layOut makes the troupes, each with its tasks.
func (r *run) layOut() (troupes []*troupe) {
	for i := range r.config.Subjects {
		all := cases(&r.config.Subjects[i])
		for _, scheme := range schemes {
			patient := &troupe{subject: i, scheme: scheme}
			hasty := &troupe{subject: i, scheme: scheme, hasty: true}
			for _, h := range r.share(all, patient) {
				t := patient
				if h.Waits {
					t = hasty
				}
				t.list = append(t.list, h)
			}
			troupes = append(troupes, hasty, patient)
		}
	}
	return slices.DeleteFunc(troupes, func(t *troupe) bool { return len(t.list) == 0 })
}

// share is what of all cases a troupe's subject and scheme play. The cases are divided among
// the subjects; what is made of a subject's own words it plays itself, and so the honest vendor.
func (r *run) share(all []upstreamtest.Hostility, t *troupe) (list []upstreamtest.Hostility) {
	n := 0
	for _, h := range all {
		if !plays(t.scheme, &h) || r.config.Cases != nil && !r.config.Cases(h.Name) {
			continue
		}
		own := h.Name == "honest" || strings.HasPrefix(h.Name, "own-")
		if n++; own || n%len(r.config.Subjects) == t.subject {
			list = append(list, h)
		}
	}
	return list
}

// waysOf are the names of a set of ways.
func waysOf(set upstreamtest.Way) (ways []string) {
	for _, w := range []struct {
		bit  upstreamtest.Way
		name string
	}{{upstreamtest.ByConnect, Connect}, {upstreamtest.ByPlain, Plain}, {upstreamtest.ByWebsocket, Websocket}} {
		if set&w.bit != 0 {
			ways = append(ways, w.name)
		}
	}
	return ways
}

func (st *stage) listeners() (list []string) {
	if st.relay.Bare != "" {
		list = append(list, Bare)
	}
	if st.relay.Secured != "" {
		list = append(list, Secured)
	}
	return list
}

// play takes cases until there are no more.
func (r *run) play(ctx context.Context, t *troupe, st *stage) {
	for h := t.take(); h != nil; h = t.take() {
		st.behave(h)
		for _, way := range waysOf(h.Ways) {
			for _, listener := range st.listeners() {
				if ctx.Err() != nil {
					return
				}
				v := st.run(ctx, &exchange{h: h, spot: Spot{Case: h.Name, Subject: st.subject.Name, Scheme: st.scheme, Way: way, Listener: listener}})
				if ctx.Err() == nil {
					r.verdicts <- v
				}
			}
		}
	}
}

func (r *run) closeStages() {
	var closing sync.WaitGroup
	for _, t := range r.troupes {
		for _, st := range t.stages {
			closing.Go(st.close)
		}
	}
	closing.Wait()
}
