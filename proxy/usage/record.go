package usage

import (
	"cmp"
	"slices"
	"time"
)

const (
	// A node's last number is kept this long after its last booking, and the newest maxNodes at
	// most: a node that tells an entry again later than that would be counted twice.
	nodeAge  = 8 * 24 * time.Hour
	maxNodes = 256
	// maxTold is how many crossings are remembered; the oldest are for quotas long gone.
	maxTold = 16
)

// bucket is what was moved in one hour, day or month.
type bucket struct {
	index int64
	Sums
}

// series are the buckets of one grain that are over, in rising order of index.
type series []bucket

// add puts s into the bucket of that index, and drops those that are older than kept.
func (s series) add(g Grain, index int64, sums Sums) series {
	at, found := slices.BinarySearchFunc(s, index, func(b bucket, i int64) int { return cmp.Compare(b.index, i) })
	if found {
		s[at].Sums = s[at].Plus(sums)
	} else {
		s = slices.Insert(s, at, bucket{index, sums})
	}
	oldest := s[len(s)-1].index - g.Kept()
	return slices.DeleteFunc(s, func(b bucket) bool { return b.index <= oldest })
}

// booked is the last entry of a node.
type booked struct {
	node string
	seq  int64
	at   int64 // unix seconds
}

// told is a crossing that was told, and by which entry.
type told struct {
	window  string
	quota   int64
	percent int64
	node    string
	seq     int64
}

// record is what changes with each booking of an account: the sum, the running hour, day and
// month, and what was seen and told. The buckets that are over lie apart, see past.
type record struct {
	all   Sums
	now   [grains]bucket
	nodes []booked
	told  []told
}

// past is where an account's series are; they change once an hour.
type past interface {
	series(g Grain) (series, error)
	setSeries(g Grain, s series) error
}

// book adds the entry if it is new, and returns the total after it.
func (r *record) book(p past, node string, at time.Time, e Entry) (Total, error) {
	if r.isNew(node, at.Unix(), e.Seq) {
		r.all = r.all.Plus(e.Sums)
		for g := Hours; g < AllTime; g++ {
			if err := r.addTo(p, g, g.Index(at), e.Sums); err != nil {
				return Total{}, err
			}
		}
	}
	// The month is the newest one booked, so that a relay whose clock is a little behind at the
	// turn counts with the others.
	t := r.total(e.Account, r.now[Months].index)
	if e.Quota.Bytes > 0 {
		r.cross(&t, node, e)
	}
	return t, nil
}

// isNew reports whether the entry has not been booked, and notes that it now is.
func (r *record) isNew(node string, at, seq int64) bool {
	for i := range r.nodes {
		if r.nodes[i].node == node {
			if seq <= r.nodes[i].seq {
				return false
			}
			r.nodes[i].seq, r.nodes[i].at = seq, at
			return true
		}
	}
	oldest := at - int64(nodeAge/time.Second)
	r.nodes = slices.DeleteFunc(r.nodes, func(b booked) bool { return b.at < oldest })
	if len(r.nodes) >= maxNodes {
		first := slices.IndexFunc(r.nodes, func(b booked) bool { return b.at == slices.MinFunc(r.nodes, byTime).at })
		r.nodes = slices.Delete(r.nodes, first, first+1)
	}
	r.nodes = append(r.nodes, booked{node, seq, at})
	return true
}

func byTime(a, b booked) int { return cmp.Compare(a.at, b.at) }

// addTo adds to the running bucket of the grain, which is put away first if it is over.
func (r *record) addTo(p past, g Grain, index int64, s Sums) error {
	now := &r.now[g]
	switch {
	case now.index == index:
		now.Sums = now.Plus(s)
		return nil
	case now.index > index: // the entry comes from before the turn
		return put(p, g, index, s)
	}
	if now.Sums != (Sums{}) {
		if err := put(p, g, now.index, now.Sums); err != nil {
			return err
		}
	}
	*now = bucket{index, s}
	return nil
}

func put(p past, g Grain, index int64, s Sums) error {
	list, err := p.series(g)
	if err != nil {
		return err
	}
	return p.setSeries(g, list.add(g, index, s))
}

// total returns what there is, with the bytes of that month if it is the running one.
func (r *record) total(account string, month int64) Total {
	t := Total{Account: account, All: r.all, Month: Months.Name(month)}
	if r.now[Months].index == month {
		t.InMonth = r.now[Months].Sums
	}
	return t
}

// cross writes into t which crossings this entry is the one to tell.
func (r *record) cross(t *Total, node string, e Entry) {
	window := string(Lifetime)
	if e.Quota.Period == Monthly {
		window = t.Month
	}
	used := t.Used(e.Quota.Period)
	for _, percent := range Crossings {
		if used < e.Quota.Mark(percent) {
			return
		}
		at := slices.IndexFunc(r.told, func(c told) bool {
			return c.window == window && c.quota == e.Quota.Bytes && c.percent == percent
		})
		if at < 0 {
			if at = len(r.told); at >= maxTold {
				r.told, at = slices.Delete(r.told, 0, 1), at-1
			}
			r.told = append(r.told, told{window, e.Quota.Bytes, percent, node, e.Seq})
		}
		if r.told[at].node == node && r.told[at].seq == e.Seq {
			t.Crossed = append(t.Crossed, percent)
		}
	}
}

// sum adds up the buckets of the grain from first on.
func (r *record) sum(p past, g Grain, first int64) (Sums, error) {
	if g == AllTime {
		return r.all, nil
	}
	var s Sums
	if r.now[g].index >= first {
		s = r.now[g].Sums
	}
	list, err := p.series(g)
	if err != nil {
		return s, err
	}
	for _, b := range list {
		if b.index >= first {
			s = s.Plus(b.Sums)
		}
	}
	return s, nil
}
