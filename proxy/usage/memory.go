package usage

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

var errClosed = errors.New("usage: the ledger is closed")

// Memory is a Ledger that ends with the process.
type Memory struct {
	now func() time.Time

	mu       sync.Mutex // guards what follows
	accounts map[string]*memoryAccount
	closed   bool
}

type memoryAccount struct {
	record
	over [grains]series
}

func (a *memoryAccount) series(g Grain) (series, error) { return a.over[g], nil }

func (a *memoryAccount) setSeries(g Grain, s series) error {
	a.over[g] = s
	return nil
}

// NewMemory returns an empty ledger that lives as long as the process. An account takes up to
// 5 KB; there are as many as were ever booked, which a Meter bounds.
func NewMemory() *Memory {
	return &Memory{now: time.Now, accounts: make(map[string]*memoryAccount)}
}

// Book implements Ledger.
func (m *Memory) Book(_ context.Context, b Batch) ([]Total, error) {
	if err := b.Check(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	totals := make([]Total, 0, len(b.Entries))
	for _, e := range b.Entries {
		a := m.accounts[e.Account]
		if a == nil {
			a = &memoryAccount{}
			m.accounts[e.Account] = a
		}
		t, err := a.book(a, b.Node, b.At, e)
		if err != nil {
			return totals, err
		}
		totals = append(totals, t)
	}
	return totals, nil
}

// Totals implements Ledger.
func (m *Memory) Totals(_ context.Context, names []string) ([]Total, error) {
	month := Months.Index(m.now())
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	totals := make([]Total, 0, len(names))
	for _, name := range names {
		t := Total{Account: name, Month: Months.Name(month)}
		if a := m.accounts[name]; a != nil {
			t = a.total(name, month)
		}
		totals = append(totals, t)
	}
	return totals, nil
}

// Report implements Ledger.
func (m *Memory) Report(_ context.Context, q Query) ([]Row, error) {
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	if q.Account != "" {
		row, err := m.rowLocked(q.Account, q, now)
		return []Row{row}, err
	}
	var rows []Row
	for name := range m.accounts {
		row, err := m.rowLocked(name, q, now)
		if err != nil {
			return nil, err
		}
		if row.Sums != (Sums{}) {
			rows = append(rows, row)
		}
	}
	SortRows(rows)
	return rows, nil
}

func (m *Memory) rowLocked(name string, q Query, now time.Time) (Row, error) {
	g, first := Cover(q.Since, now)
	row := Row{Account: name, From: g.Start(first), To: now.UTC()}
	a := m.accounts[name]
	if a == nil {
		return row, nil
	}
	var err error
	row.Sums, err = a.sum(a, g, first)
	return row, err
}

// Close implements Ledger.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// SortRows puts rows in the order of their accounts' names.
func SortRows(rows []Row) {
	slices.SortFunc(rows, func(a, b Row) int { return cmp.Compare(a.Account, b.Account) })
}
