package usage

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	bookInterval = 2 * time.Second
	lookInterval = time.Second
	ledgerTime   = 2 * time.Second
	lastTime     = 3 * time.Second // from the end of Run's context
	lastTries    = 3
	usedLately   = 10 * time.Minute
	usedJustNow  = 6 * time.Second // longer than from one reading of totals to the next
	pollAge      = time.Second     // totals younger than this, as those just booked, are not read anew
	reportTime   = 5 * time.Second // booking waits for a report
	maxEntries   = 10_000          // of one batch, so that no call to the ledger is too long
)

// Books book what a Meter counts and keep its Counters' Exhausted true to the quotas. Safe for
// concurrent use; nothing happens until Run is called.
type Books struct {
	config BooksConfig

	ledger chan struct{} // holds a token while the ledger is told something, so that a report is of one moment
	look   chan struct{} // a token: look at the quotas now
	learn  chan struct{} // a token: totals of accounts may be missing

	mu     sync.Mutex // guards what follows
	pages  []*page    // never fewer
	byName map[string]*page
	month  string // when the quotas were last looked at
	all    bool   // look at every page

	troubled bool // the last call to the ledger failed; only keep uses it
	counts   bookCounts
}

// NewBooks returns the Books. It panics without a Meter, a Ledger or a Node.
func NewBooks(c BooksConfig) *Books {
	if c.Meter == nil || c.Ledger == nil || c.Node == "" {
		panic("usage: books need a meter, a ledger and a node")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Books{
		config: c,
		ledger: make(chan struct{}, 1),
		look:   make(chan struct{}, 1),
		learn:  make(chan struct{}, 1),
		byName: make(map[string]*page),
		counts: newBookCounts(),
	}
}

// Refresh has all quotas looked up again at once, because accounts changed.
func (b *Books) Refresh() {
	b.mu.Lock()
	b.all = true
	b.mu.Unlock()
	poke(b.look)
}

// poke leaves a token unless there is one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run books every two seconds, and looks at the quotas every second, until ctx ends; then it
// books what is left, for three seconds at most, and returns. It is to be called once. End ctx
// after the last byte: what moves later is not booked.
func (b *Books) Run(ctx context.Context) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	var others sync.WaitGroup
	others.Go(func() { b.watch(ctx) })
	others.Go(func() { endAfter(ctx, life, end) })
	b.keep(ctx, life)
	end()
	others.Wait()
}

// endAfter calls end lastTime after the end of ctx, unless life has ended by then.
func endAfter(ctx, life context.Context, end func()) {
	select {
	case <-ctx.Done():
	case <-life.Done():
		return
	}
	timer := time.NewTimer(lastTime)
	defer timer.Stop()
	select {
	case <-timer.C:
		end()
	case <-life.Done():
	}
}

// keep talks with the ledger until ctx ends, and once more after it. The calls end with life.
func (b *Books) keep(ctx, life context.Context) {
	tick := time.NewTicker(bookInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			b.closeOff(life)
			return
		case <-tick.C:
			b.open()
			err := b.book(life)
			if err == nil {
				err = b.learnTotals(life, true)
			}
			b.tell(err)
		case <-b.config.Meter.wake:
			b.open()
			b.tell(b.learnTotals(life, false))
		case <-b.learn:
			b.tell(b.learnTotals(life, false))
		}
		poke(b.look)
	}
}

// closeOff books what is left.
func (b *Books) closeOff(life context.Context) {
	b.open()
	var err error
	for range lastTries {
		if err = b.book(life); err == nil {
			break
		}
	}
	b.tell(err)
}

// open gives every new Counter a page.
func (b *Books) open() {
	fresh := b.config.Meter.takeFresh()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range fresh {
		p := &page{name: c.name, counter: c, used: b.config.Now(), dirty: true}
		p.quota = b.quotaOf(p)
		b.pages = append(b.pages, p)
		b.byName[p.name] = p
	}
}

func (b *Books) quotaOf(p *page) Quota {
	if b.config.Quota == nil || b.config.Meter.shared(p.counter) {
		return Quota{}
	}
	q, ok := b.config.Quota(p.name)
	if !ok || q.Bytes <= 0 {
		return Quota{}
	}
	return q
}

// tell passes on that the ledger fails, or works again.
func (b *Books) tell(err error) {
	if (err != nil) == b.troubled {
		return
	}
	b.troubled = err != nil
	if b.config.Trouble != nil {
		b.config.Trouble(err)
	}
}

// watch looks at the quotas until ctx ends.
func (b *Books) watch(ctx context.Context) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-b.look:
		}
		for _, name := range b.lookAtQuotas() {
			if b.config.Exhausted != nil {
				b.config.Exhausted(name)
			}
		}
	}
}

// lookAtQuotas sets every Counter's Exhausted, and returns the accounts whose connections are to be closed.
func (b *Books) lookAtQuotas() (closing []string) {
	now := b.config.Now()
	month := monthOf(now)
	missing := false
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.all || b.month != month
	b.all, b.month = false, month
	for _, p := range b.pages {
		s := p.counter.sums()
		moved, asked := s != p.looked, p.counter.asked.Load()
		if !all && !moved && !asked && !p.dirty {
			continue
		}
		p.looked, p.dirty = s, false
		if asked {
			p.counter.asked.Store(false)
		}
		if asked || moved {
			p.used = now
		}
		p.quota = b.quotaOf(p)
		missing = missing || p.quota.Bytes > 0 && !p.known
		is := p.quota.Bytes > 0 && p.usedIn(month) >= p.quota.Bytes
		if was := p.counter.exhausted.Swap(is); is && (moved || !was) {
			closing = append(closing, p.name)
		}
	}
	if all && missing {
		poke(b.learn)
	}
	return closing
}

// hold waits until nobody else talks with the ledger; the release must be called.
func (b *Books) hold(ctx context.Context) (release func(), err error) {
	select {
	case b.ledger <- struct{}{}:
		return func() { <-b.ledger }, nil
	case <-ctx.Done():
		return nil, errors.Join(errors.New("usage: the ledger is busy"), ctx.Err())
	}
}
