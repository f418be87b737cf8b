package audit

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"maskrelay/upstream/upstreamtest"
)

// task is a case that a stage plays in all of its ways.
type task struct{ hostility upstreamtest.Hostility }

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

// troupe are the stages of one subject and scheme, and what they play together.
type troupe struct {
	stages []*stage
	tasks  chan task
}

var schemes = []string{HTTP, HTTPS, SOCKS5}

// prepare starts all stages and lays out what they play. The cases are divided among the
// subjects; what is made of a subject's own words it plays itself, and so the honest vendor.
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
	for i := range subjects {
		for _, scheme := range schemes {
			t := &troupe{}
			r.troupes = append(r.troupes, t)
			for range each {
				starting.Go(func() {
					st, err := newStage(r.config, &subjects[i], scheme)
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
	}
	starting.Wait()
	if err := errors.Join(errs...); err != nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	for i, t := range r.troupes {
		r.layOut(t, i/len(schemes))
	}
	return nil
}

// layOut gives a troupe its tasks, those that wait first: they bound the time of the whole.
func (r *run) layOut(t *troupe, subject int) {
	st := t.stages[0]
	var list []upstreamtest.Hostility
	n := 0
	for _, h := range cases(&r.config.Subjects[subject]) {
		if !st.plays(&h) || r.config.Cases != nil && !r.config.Cases(h.Name) {
			continue
		}
		own := h.Name == "honest" || len(h.Name) > 4 && h.Name[:4] == "own-"
		if n++; own || n%len(r.config.Subjects) == subject {
			list = append(list, h)
		}
	}
	slices.SortStableFunc(list, func(a, b upstreamtest.Hostility) int {
		switch {
		case a.Waits == b.Waits:
			return 0
		case a.Waits:
			return -1
		default:
			return 1
		}
	})
	t.tasks = make(chan task, len(list))
	for _, h := range list {
		t.tasks <- task{h}
		r.total += len(waysOf(h.Ways)) * len(st.listeners())
	}
	close(t.tasks)
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

// play takes tasks until there are no more.
func (r *run) play(ctx context.Context, t *troupe, st *stage) {
	for task := range t.tasks {
		h := &task.hostility
		st.behave(h)
		for _, way := range waysOf(h.Ways) {
			for _, listener := range st.listeners() {
				if ctx.Err() != nil {
					return
				}
				e := &exchange{h: h, spot: Spot{Case: h.Name, Subject: st.subject.Name, Scheme: st.scheme, Way: way, Listener: listener}}
				v := st.run(ctx, e)
				if len(v.leaks) == 0 && len(v.problems) > 0 && ctx.Err() == nil {
					v = st.run(ctx, e) // a busy machine breaks limits of time; a relay's fault comes back
				}
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
