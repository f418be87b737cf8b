package soak

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// entry is all that is known of one tunnel or plain request.
type entry struct {
	spec      spec
	customer  *report
	vendors   []report
	lines     []logLine
	customers int // reports of a customer; one is right
}

// logLine is what is read of a line of the relay's log.
type logLine struct {
	Level, Message, ID, Account, Target, Upstream, Outcome string
	Status                                                 int
	Sent, Received                                         int64
	Came                                                   int64 `json:"-"` // here, Unix ns
}

// ledger collects what customers, vendors and the relay's log say, and judges it tunnel by tunnel. It is safe for concurrent use.
type ledger struct {
	mu         sync.Mutex
	entries    map[uint64]*entry
	seen       []uint64       // exchanges in the log, a bit for each number
	outcomes   map[string]int // exchanges in the log
	total      int            // of them
	rest       []byte         // of the log, an incomplete line
	complaints []string
	more       int // complaints that were not kept
	kills      []time.Time
	judged     int
	bytes      int64             // digested, both ends
	upstreams  map[string]int    // exchanges in the log
	sessions   map[string]string // at the vendors, by the customer's account and session
	owners     map[string]string // the reverse
}

// killed is the vendor that is killed now and then; the other one never is.
const (
	steadyVendor = "vendor-steady"
	killedVendor = "vendor-killed"
)

func newLedger() *ledger {
	return &ledger{
		entries: map[uint64]*entry{}, outcomes: map[string]int{}, upstreams: map[string]int{}, sessions: map[string]string{}, owners: map[string]string{},
	}
}

// maxComplaints bounds what a failed run prints.
const maxComplaints = 30

func (l *ledger) complain(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.complainLocked(format, args...)
}

func (l *ledger) complainLocked(format string, args ...any) {
	if len(l.complaints) >= maxComplaints {
		l.more++
		return
	}
	l.complaints = append(l.complaints, fmt.Sprintf(format, args...))
}

// entryLocked finds the entry of a spec.
func (l *ledger) entryLocked(s spec) *entry {
	e := l.entries[s.ID]
	if e == nil {
		e = &entry{spec: s}
		l.entries[s.ID] = e
	}
	return e
}

// report takes an end's report.
func (l *ledger) report(r report) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := parseSpec(r.Name + domain)
	if !ok {
		l.complainLocked("%s reports %q: %s", r.Side, r.Name, r.Bad)
		return
	}
	e := l.entryLocked(s)
	l.bytes += r.Got
	if r.Side == customerSide {
		e.customer = &r
		e.customers++
		return
	}
	e.vendors = append(e.vendors, r)
}

// Write takes the relay's log.
func (l *ledger) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		text, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			break
		}
		l.lineLocked(text)
		l.rest = rest
	}
	l.rest = bytes.Clone(l.rest)
	return len(p), nil
}

func (l *ledger) lineLocked(text []byte) {
	line := logLine{Came: time.Now().UnixNano()}
	if err := json.Unmarshal(text, &line); err != nil {
		l.complainLocked("relay: %s", text) // the race detector, a panic
		return
	}
	if line.Level == "error" || line.Level == "fatal" || line.Level == "panic" {
		l.complainLocked("relay: %s", text)
	}
	if line.Message != "exchange" {
		return
	}
	if !l.firstLocked(line.ID) {
		l.complainLocked("relay: the exchange of this line has no number, or was logged before: %s", text)
	}
	l.outcomes[line.Outcome]++
	l.upstreams[line.Upstream]++
	l.total++
	if s, ok := parseSpec(line.Target); ok {
		e := l.entryLocked(s)
		e.lines = append(e.lines, line)
	}
}

// maxExchanges bounds a run's exchanges: a day of them, several times over.
const maxExchanges = 1 << 30

// firstLocked notes an exchange's id, a prefix and a number in base 36, and reports whether it is new.
func (l *ledger) firstLocked(id string) bool {
	n, err := strconv.ParseUint(id[strings.LastIndexByte(id, '-')+1:], 36, 64)
	if err != nil || n >= maxExchanges {
		return false
	}
	word, bit := int(n/64), uint64(1)<<(n%64)
	if word >= len(l.seen) {
		l.seen = append(l.seen, make([]uint64, word+1-len(l.seen))...)
	}
	first := l.seen[word]&bit == 0
	l.seen[word] |= bit
	return first
}

// kill notes that the killed vendor is being killed, or is up again: both bound the time in which its tunnels may break.
func (l *ledger) kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kills = append(l.kills, time.Now())
}

// exchanges returns how many lines each outcome has, and all together.
func (l *ledger) exchanges() (map[string]int, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	byOutcome := make(map[string]int, len(l.outcomes))
	for o, n := range l.outcomes {
		byOutcome[o] = n
	}
	return byOutcome, l.total
}

// complete reports whether every orderly tunnel that the customer has told of was told of by a vendor and the log, too.
func (l *ledger) complete() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.customer == nil || len(e.final()) == 0 || e.spec.Mode.orderly() && len(e.vendors) == 0 {
			if !l.excusedLocked(e) {
				return false
			}
		}
	}
	return true
}

// judgeAll finds what went wrong, and forgets the tunnels.
func (l *ledger) judgeAll() { l.judge(func(*entry) bool { return true }) }

// judgeOld is judgeAll for tunnels that ended long enough ago for all reports, and kills that excuse them, to be known.
func (l *ledger) judgeOld() {
	limit := time.Now().Add(-2 * (killShadow + 2*longPause)).UnixNano()
	l.judge(func(e *entry) bool { return e.customer != nil && e.customer.Stop < limit })
}

func (l *ledger) judge(which func(*entry) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, e := range l.entries {
		if !which(e) {
			continue
		}
		if why := l.verdictLocked(e); why != "" {
			l.complainLocked("%s: %s\n\tcustomer: %+v\n\tvendors: %+v\n\tlog: %+v", e.spec, why, e.customer, e.vendors, e.lines)
		}
		l.judged++
		delete(l.entries, id)
	}
}

// final are the lines of e's exchanges but those that were refused before.
func (e *entry) final() []logLine {
	return slices.DeleteFunc(slices.Clone(e.lines), func(line logLine) bool { return line.Outcome == "auth_failed" || line.Outcome == "cap_conns" })
}
