// Package tunnel carries bytes between a customer and an upstream connection.
//
// Engine.Submit is the only door: it takes a customer's connection, opens the
// upstream side, greets or refuses the customer, pumps both directions until
// both have ended, and reports the end exactly once.
//
//	engine := tunnel.NewEngine(tunnel.Options{IdleTimeout: 10 * time.Minute, HalfOpenTimeout: time.Minute})
//	engine.Submit(tunnel.Job{Client: conn, Open: dial, Greeting: greeting, Refusal: reply, Done: book})
//	…
//	engine.Drain(ctx) // waits for the tunnels, then cuts them
//	engine.Close()
//
// A tunnel at rest holds its two sockets, two parked goroutines and no buffer: a
// direction waits until its source is readable and only then borrows a buffer from
// a pool. Half-closes and resets are passed on. One idle clock a tunnel is reset by
// any byte in either direction; it is read by a sweep, not by timers.
//
// The package refuses to dial, to parse and to log; it imports nothing of ours.
package tunnel
