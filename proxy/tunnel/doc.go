// Package tunnel carries bytes between a customer and an upstream connection.
//
// A tunnel comes into being in one of two ways. Submit takes over a connection that
// somebody else has accepted and read a head from:
//
//	engine := tunnel.NewEngine(tunnel.Options{IdleTimeout: 10 * time.Minute, HalfOpenTimeout: time.Minute})
//	engine.Submit(tunnel.Job{Client: conn, Early: rest, Exchange: x})
//	…
//	engine.Drain(ctx) // waits for the tunnels, then cuts them
//	engine.Close()
//
// Serve takes over a listener: the engine accepts, asks a Visitor what to do with each
// head, and opens the tunnel itself. Either way the Exchange says how the upstream is
// reached, what the customer is told, and is told the end exactly once.
//
// On Linux tunnels of plain TCP live in reactors, one goroutine for each processor. A
// reactor parks in Go's poller on its own epoll instance (epoll in epoll), so that no
// thread is blocked. A socket is registered once, edge-triggered; a connection is a
// place in a slab, named in events by index and generation. The reactor connects to the
// upstream, writes the request and reads the answer as well; only what can block (name
// resolution, TLS) runs in a goroutine, Exchange.Open. Small reads are copied through one
// buffer; a direction that fills it again and again is spliced through a pipe that it
// holds only while bytes are in it. There are no timers: sweeps look at a coarse clock.
// An idle tunnel costs 144 bytes, two descriptors and no goroutine.
//
// Tunnels with TLS on either side, and all tunnels on other systems, are carried by
// pumps: a goroutine a direction while bytes move, none while they do not (on Linux).
// Both pass one conformance suite.
//
// What both promise: no byte is lost, and none invented. Half-closes and resets are
// passed on, a reset not before what was sent has arrived, or two seconds have passed. A
// tunnel ends when both directions have, when no byte has moved for the idle timeout
// (bytes that only the kernel moves count), or when it is cut. A panic in an Exchange
// ends its own tunnel.
//
// The package refuses to choose an upstream, to parse and to log; it imports nothing of
// ours.
package tunnel
