package upstream

import (
	"math/rand/v2"
	"sync"
	"testing"
)

// left is how many tokens can be taken now. It takes them.
func (b *budget) left() int {
	n := 0
	for b.take() {
		n++
	}
	return n
}

func newBudget() *budget {
	b := new(budget)
	b.init()
	return b
}

func TestBudget(t *testing.T) {
	exchanges := func(b *budget, n int, reached bool) {
		for range n {
			b.begin()
			b.end(reached)
		}
	}
	tests := map[string]struct {
		do   func(*budget)
		want int
	}{
		"the reserve":             {func(*budget) {}, 15},
		"not more than that":      {func(b *budget) { exchanges(b, 10000, true) }, 15},
		"earned again":            {func(b *budget) { b.left(); exchanges(b, 11, true) }, 2}, // 2.035
		"nobody reached":          {func(b *budget) { b.left(); exchanges(b, 1000, false) }, 0},
		"refunded":                {func(b *budget) { b.left(); b.refund() }, 1},
		"refunded to the reserve": {func(b *budget) { b.refund() }, 15},
		"under way":               {func(b *budget) { b.left(); begin(b, 100) }, 18},
		"spent in advance": {func(b *budget) {
			begin(b, 100)
			b.left()
			for range 100 {
				b.end(true)
			}
		}, 0},
		"spent in advance, and not earned": {func(b *budget) {
			begin(b, 100)
			b.left() // 33 of 15 + 18.5
			for range 100 {
				b.end(false)
			}
			exchanges(b, 103, true) // 15 - 33 + 19.055
		}, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBudget()
			test.do(b)
			if got := b.left(); got != test.want {
				t.Errorf("%d tokens, want %d", got, test.want)
			}
			if n := b.denied.Load(); n == 0 {
				t.Error("nothing counted as denied")
			}
		})
	}
}

func begin(b *budget, n int) {
	for range n {
		b.begin()
	}
}

// Whatever happens, in any stretch of time there are no more retries than the reserve and
// what the exchanges under way in it earn.
func TestBudgetHoldsInAnyStretch(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		b := newBudget()
		type mark struct{ seen, retries int } // when a stretch began: exchanges ended, retries
		var marks []mark
		underway, ended, retries := 0, 0, 0
		for step := range 4000 {
			switch calm := r.IntN(1000) < 500; {
			case underway == 0 || r.IntN(3) == 0 && underway < 300:
				b.begin()
				underway++
			case r.IntN(2) == 0 && (calm || step%500 < 250):
				b.end(true)
				underway--
				ended++
			default:
				if b.take() {
					retries++
				}
			}
			if step%100 == 0 {
				marks = append(marks, mark{ended, retries})
			}
			for _, m := range marks {
				exchanges := ended - m.seen + underway
				if made := retries - m.retries; made*budgetToken > budgetReserve+budgetEarned*exchanges {
					t.Fatalf("seed %d, step %d: %d retries for %d exchanges", seed, step, made, exchanges)
				}
			}
		}
		if retries < 100 {
			t.Errorf("seed %d: only %d retries: nothing was tried", seed, retries)
		}
	}
}

// Nothing is lost between many at once.
func TestBudgetInParallel(t *testing.T) {
	b := newBudget()
	b.left()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 2000 {
				b.begin()
				if b.take() {
					b.refund()
				}
				b.end(false)
			}
		})
	}
	all.Wait()
	if state := b.state.Load(); state>>32 != 0 || int32(state) != 0 {
		t.Errorf("%d under way, %d thousandths left", state>>32, int32(state))
	}
}
