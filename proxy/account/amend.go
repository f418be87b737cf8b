package account

import (
	"maps"
	"slices"
	"time"
)

// amended returns the snapshot that has the records of put, in the places of their
// names' or at the end, and not those of gone. It costs a copy of the map and of the
// lists; snap itself stays.
func (snap *snapshot) amended(put []*record, gone []string) *snapshot {
	next := &snapshot{byName: maps.Clone(snap.byName), wrong: snap.wrong}
	replaced := make(map[*record]*record, len(put)+len(gone))
	var added, expiring []*record
	for _, r := range put {
		was := next.byName[r.Name]
		if was == nil {
			added = append(added, r)
		} else {
			replaced[was] = r
		}
		if was == nil || was.verifier != r.verifier {
			next.wrong = newDigestSet() // what was a wrong password may be the right one now
		}
		if !r.Expires.IsZero() {
			expiring = append(expiring, r)
		}
		next.byName[r.Name] = r
	}
	for _, name := range gone {
		if was := next.byName[name]; was != nil {
			replaced[was] = nil
			delete(next.byName, name)
		}
	}
	next.list = make([]*record, 0, len(snap.list)+len(added))
	for _, r := range snap.list {
		if by, ok := replaced[r]; ok {
			r = by
		}
		if r != nil {
			next.list = append(next.list, r)
		}
	}
	next.list = append(next.list, added...)
	slices.SortFunc(expiring, byExpiry)
	next.expiring = mergeExpiring(snap.expiring, expiring, replaced)
	return next
}

// mergeExpiring merges two sorted lists, without the records that are replaced.
func mergeExpiring(old, put []*record, replaced map[*record]*record) []*record {
	merged := make([]*record, 0, len(old)+len(put))
	for _, r := range old {
		if _, ok := replaced[r]; ok {
			continue
		}
		for len(put) > 0 && byExpiry(put[0], r) < 0 {
			merged = append(merged, put[0])
			put = put[1:]
		}
		merged = append(merged, r)
	}
	return append(merged, put...)
}

// changeOf compares snap with next, as of now, where only some names can differ.
func (snap *snapshot) changeOf(next *snapshot, names []string, now time.Time) Change {
	var c Change
	for _, name := range names {
		c.note(snap.byName[name], next.byName[name], now)
	}
	c.sort()
	return c
}
