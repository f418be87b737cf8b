// Package limit bounds how many connections a customer, and the relay as a
// whole, may hold, and how fast a customer may open them.
//
// A connection is admitted by [Limiter.Acquire], which hands out a [Lease]; the
// slot is taken until [Lease.Release], which belongs to the end of the
// connection and not to the return of a handler:
//
//	lease, err := limiter.Acquire(ctx, account.Name, limit.Caps{MaxConns: 2000, ConnRate: 200})
//	var over *limit.ExceededError
//	if errors.As(err, &over) {
//		// answer 429 with Retry-After: over.RetryAfter
//	}
//	defer lease.Release()
//
// [Memory] is the [Limiter] of a single relay. [Slots] is the bound of the relay
// itself, and [Fair] gives them out so that a full relay serves all who ask. The
// package does not log, and but for [Fair.Acquire], which is told how long, it does
// not wait: a connection over its cap is refused at once, and a refusal consumes nothing.
package limit
