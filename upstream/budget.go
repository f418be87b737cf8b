package upstream

import "sync/atomic"

// A retry after a gateway was reached costs a token of its pool's budget. An exchange
// earns budgetEarned of one, for good if a gateway was reached. Not more than
// budgetReserve is kept of what exchanges that have ended earned; what those under way
// earn is there to be spent beside that, so that a burst need not wait for its end.
//
// So in any stretch of time there are at most 15 + 0.185 retries for each exchange that
// was under way in it: with 1,000 exchanges or more at most 20 % extra load, whatever
// was before. One gateway of three that fails half of its answers needs 16.7 %.
const (
	budgetToken   = 1000 // thousandths
	budgetEarned  = 185
	budgetReserve = 15 * budgetToken
)

// maxAnswered is how many gateways may be reached for one exchange.
const maxAnswered = 3

// budget limits the retries of one pool. Safe for concurrent use, and lock-free.
type budget struct {
	// state holds the exchanges under way in its upper half, and in its lower half the
	// thousandths of tokens that were earned for good, less those spent: two's
	// complement, for those under way may spend theirs in advance.
	state        atomic.Uint64
	made, denied atomic.Uint64
}

const budgetUnderway = 1 << 32 // one exchange, in state

func (b *budget) init() { b.state.Store(budgetReserve) }

// begin notes that an exchange is under way.
func (b *budget) begin() { b.state.Add(budgetUnderway) }

// end notes the end of an exchange, and whether a gateway was reached.
func (b *budget) end(reached bool) {
	earned := int32(0)
	if reached {
		earned = budgetEarned
	}
	b.change(earned, budgetUnderway)
}

// take takes a token, and reports whether there was one.
func (b *budget) take() bool {
	for {
		old := b.state.Load()
		tokens := int32(old)
		if int64(tokens)+int64(old>>32)*budgetEarned < budgetToken {
			b.denied.Add(1)
			return false
		}
		if b.state.CompareAndSwap(old, old&^0xffffffff|uint64(uint32(tokens-budgetToken))) {
			return true
		}
	}
}

// refund gives a token back that was not needed.
func (b *budget) refund() { b.change(budgetToken, 0) }

// change adds tokens up to the reserve, and subtracts exchanges under way.
func (b *budget) change(tokens int32, underway uint64) {
	for {
		old := b.state.Load()
		now := min(int32(old)+tokens, budgetReserve)
		if b.state.CompareAndSwap(old, (old-underway)&^0xffffffff|uint64(uint32(now))) {
			return
		}
	}
}

// used notes that a token served for a retry that reached a gateway.
func (b *budget) used() { b.made.Add(1) }
