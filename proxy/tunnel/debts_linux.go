//go:build amd64 || arm64

package tunnel

import "container/heap"

// fewEntries is how many of them may be held of what has gone before it is tidied at all.
const fewEntries = 256

// debt is a side that waits until its share of a bandwidth allows the next move.
type debt struct {
	at    int64 // when to look at it
	token uint64
	place int64 // in the account of the bandwidth
}

// debts are ordered by time.
type debts []debt

func (d debts) Len() int           { return len(d) }
func (d debts) Less(i, j int) bool { return d[i].at < d[j].at }
func (d debts) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *debts) Push(x any)        { *d = append(*d, x.(debt)) }

// Pop implements heap.Interface.
func (d *debts) Pop() any {
	n := len(*d) - 1
	x := (*d)[n]
	*d = (*d)[:n]
	return x
}

func (d *debts) add(x debt) { heap.Push(d, x) }

// tidy keeps those that keep says, when more than twice live and a few are in it: the
// debts of tunnels that have ended may be far from due.
func (d *debts) tidy(live int, keep func(token uint64) bool) {
	if len(*d) <= 2*live+fewEntries {
		return
	}
	kept := (*d)[:0]
	for _, x := range *d {
		if keep(x.token) {
			kept = append(kept, x)
		}
	}
	*d = kept
	heap.Init(d)
}

// next is when to look at the first one; 0 = there is none.
func (d *debts) next() int64 {
	if len(*d) == 0 {
		return 0
	}
	return (*d)[0].at
}

// due returns one to look at by now.
func (d *debts) due(now int64) (debt, bool) {
	if len(*d) == 0 || (*d)[0].at > now {
		return debt{}, false
	}
	return heap.Pop(d).(debt), true
}
