package usage

import (
	"fmt"
	"time"
)

// Grain is the length of the buckets that usage is kept in, all of them UTC.
type Grain int

// The grains, finest first. A ledger keeps 48 hours, 62 days and 24 months of each account, and
// one sum of all times.
const (
	Hours Grain = iota
	Days
	Months
	AllTime

	grains = int(AllTime) // those that are kept in buckets
)

// Kept is how many buckets of the grain a ledger keeps, the running one included.
func (g Grain) Kept() int64 {
	switch g {
	case Hours:
		return 48
	case Days:
		return 62
	case Months:
		return 24
	}
	return 1
}

// Index numbers the bucket that t lies in: later ones have higher numbers. It is 0 for AllTime.
func (g Grain) Index(t time.Time) int64 {
	t = t.UTC()
	switch g {
	case Hours:
		return t.Unix() / 3600
	case Days:
		return t.Unix() / 86400
	case Months:
		return int64(t.Year())*12 + int64(t.Month()) - 1
	}
	return 0
}

// Start is when the bucket begins; the zero time for AllTime.
func (g Grain) Start(index int64) time.Time {
	switch g {
	case Hours:
		return time.Unix(index*3600, 0).UTC()
	case Days:
		return time.Unix(index*86400, 0).UTC()
	case Months:
		return time.Date(int(index/12), time.Month(index%12+1), 1, 0, 0, 0, 0, time.UTC)
	}
	return time.Time{}
}

// Name writes a month as "2026-11", a day as "2026-11-21", an hour as "2026-11-21T08".
func (g Grain) Name(index int64) string {
	switch g {
	case Hours:
		return g.Start(index).Format("2006-01-02T15")
	case Days:
		return g.Start(index).Format(time.DateOnly)
	case Months:
		return fmt.Sprintf("%04d-%02d", index/12, index%12+1)
	}
	return string(Lifetime)
}

// Cover returns the finest grain whose kept buckets reach back to since, and the number of the
// first of them: a report begins at the start of that hour, day or month. A zero since, and one
// further back than the months, covers all time.
func Cover(since, now time.Time) (g Grain, first int64) {
	if since.IsZero() {
		return AllTime, 0
	}
	for g := Hours; g < AllTime; g++ {
		if first := g.Index(since); first > g.Index(now)-g.Kept() {
			return g, first
		}
	}
	return AllTime, 0
}
