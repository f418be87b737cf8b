package audit

import (
	"cmp"
	"slices"
	"time"
)

const (
	maxListed  = 1000 // leaks and failures that a report lists
	maxExcerpt = 120  // bytes
)

// Spot is where in the matrix an exchange stands.
type Spot struct {
	Case     string `json:"case"`
	Subject  string `json:"gateway"` // the operator's
	Scheme   string `json:"scheme"`  // that the stand-in vendor spoke
	Way      string `json:"way"`
	Listener string `json:"listener"`
}

// Leak is a mark that somebody received who must not.
type Leak struct {
	Spot
	Where   string `json:"where"` // customer, vendor or target, and the form: "customer (base64)"
	Mark    string `json:"mark"`
	Offset  int64  `json:"offset"`
	Excerpt string `json:"excerpt,omitempty"` // what stands there, secrets redacted
}

// Tally is how often somebody received a mark.
type Tally struct {
	Where string `json:"where"`
	Mark  string `json:"mark"`
	Count int    `json:"count"`
}

// Failure is an exchange that did not go as it must, without a leak.
type Failure struct {
	Spot
	Problem string `json:"problem"`
	Excerpt string `json:"excerpt,omitempty"`
}

// Cell is one cell of the matrix.
type Cell struct {
	Way      string `json:"way"`
	Scheme   string `json:"scheme"`
	Listener string `json:"listener"`
	Cases    int    `json:"cases"`
	Passed   int    `json:"passed"`
	Leaks    int    `json:"leaks"`    // cases with a leak
	Failures int    `json:"failures"` // cases that failed otherwise
}

// Shape is one form of the relay's own replies, as customers got it.
type Shape struct {
	Status int    `json:"status"`
	Closes bool   `json:"closes"` // it says Connection: close
	Count  int    `json:"count"`
	Bytes  string `json:"bytes"`
}

// Report is what an audit found.
type Report struct {
	OK        bool          `json:"ok"`
	Exchanges int           `json:"exchanges"`
	Took      time.Duration `json:"-"`
	Seconds   float64       `json:"seconds"`
	Cells     []Cell        `json:"matrix"`
	// LeakCount and FailureCount are of all that was found; the lists are bounded.
	LeakCount    int       `json:"leak_count"`
	FailureCount int       `json:"failure_count"`
	Marks        []Tally   `json:"leak_marks"` // the most frequent first
	Leaks        []Leak    `json:"leaks"`
	Failures     []Failure `json:"failures"`
	// Shapes are the relay's own replies: one for each status and Closes.
	Shapes []Shape `json:"replies"`
}

// verdict is what was found of one exchange.
type verdict struct {
	spot     Spot
	leaks    []Leak
	problems []Failure
	reply    []byte // the relay's own, nil = the exchange was served
	status   int
}

// ledger gathers verdicts. Its methods are for one goroutine.
type ledger struct {
	report Report
	cells  map[[3]string]*Cell
	shapes map[shapeKey]*Shape
	marks  map[[2]string]int // leaks by where and mark
}

type shapeKey struct {
	status int
	closes bool
	bytes  string
}

func newLedger() *ledger {
	l := &ledger{cells: map[[3]string]*Cell{}, shapes: map[shapeKey]*Shape{}, marks: map[[2]string]int{}}
	l.report.Leaks, l.report.Failures, l.report.Marks = []Leak{}, []Failure{}, []Tally{}
	return l
}

func (l *ledger) add(v verdict) {
	l.noteShape(&v)
	at := [3]string{v.spot.Way, v.spot.Scheme, v.spot.Listener}
	c := l.cells[at]
	if c == nil {
		c = &Cell{Way: at[0], Scheme: at[1], Listener: at[2]}
		l.cells[at] = c
	}
	c.Cases++
	l.report.Exchanges++
	switch {
	case len(v.leaks) > 0:
		c.Leaks++
	case len(v.problems) > 0:
		c.Failures++
	default:
		c.Passed++
	}
	for _, leak := range v.leaks {
		l.marks[[2]string{leak.Where, leak.Mark}]++
	}
	l.report.LeakCount += len(v.leaks)
	l.report.FailureCount += len(v.problems)
	l.report.Leaks = bounded(append(l.report.Leaks, v.leaks...))
	l.report.Failures = bounded(append(l.report.Failures, v.problems...))
}

func bounded[T any](list []T) []T { return list[:min(len(list), maxListed)] }

// noteShape counts a reply of the relay's own, and finds a second form of one: of the same
// status, and the same about the connection's end, there may be one alone.
func (l *ledger) noteShape(v *verdict) {
	if v.reply == nil {
		return
	}
	key := shapeKey{v.status, closes(v.reply), string(v.reply)}
	if s := l.shapes[key]; s != nil {
		s.Count++
		return
	}
	for other, s := range l.shapes {
		if other.status == key.status && other.closes == key.closes {
			v.problems = append(v.problems, Failure{
				Spot: v.spot, Problem: "the reply differs from another of the same status: " + shown([]byte(s.Bytes)), Excerpt: shown(v.reply),
			})
		}
	}
	l.shapes[key] = &Shape{Status: v.status, Closes: key.closes, Count: 1, Bytes: key.bytes}
}

// finish returns the report, sorted.
func (l *ledger) finish(took time.Duration) *Report {
	r := &l.report
	for _, c := range l.cells {
		r.Cells = append(r.Cells, *c)
	}
	slices.SortFunc(r.Cells, func(a, b Cell) int {
		return cmp.Or(cmp.Compare(a.Way, b.Way), cmp.Compare(a.Scheme, b.Scheme), cmp.Compare(a.Listener, b.Listener))
	})
	for _, s := range l.shapes {
		r.Shapes = append(r.Shapes, *s)
	}
	slices.SortFunc(r.Shapes, func(a, b Shape) int {
		return cmp.Or(cmp.Compare(a.Status, b.Status), cmp.Compare(a.Bytes, b.Bytes))
	})
	for at, n := range l.marks {
		r.Marks = append(r.Marks, Tally{Where: at[0], Mark: at[1], Count: n})
	}
	slices.SortFunc(r.Marks, func(a, b Tally) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Where, b.Where), cmp.Compare(a.Mark, b.Mark))
	})
	r.Marks = bounded(r.Marks)
	bySpot := func(a, b Spot) int {
		return cmp.Or(cmp.Compare(a.Case, b.Case), cmp.Compare(a.Way, b.Way), cmp.Compare(a.Scheme, b.Scheme),
			cmp.Compare(a.Listener, b.Listener), cmp.Compare(a.Subject, b.Subject))
	}
	slices.SortFunc(r.Leaks, func(a, b Leak) int {
		return cmp.Or(bySpot(a.Spot, b.Spot), cmp.Compare(a.Where, b.Where), cmp.Compare(a.Mark, b.Mark))
	})
	slices.SortFunc(r.Failures, func(a, b Failure) int { return bySpot(a.Spot, b.Spot) })
	r.Took, r.Seconds = took, took.Seconds()
	r.OK = r.LeakCount == 0 && r.FailureCount == 0 && r.Exchanges > 0
	return r
}
