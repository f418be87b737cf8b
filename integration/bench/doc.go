// Command bench measures the built maskrelay binary beside other relays on loopback:
//
//	make bench
//	make bench BENCH_ARGS="-peers maskrelay,haproxy-http -cells rate,hold -rounds 5"
//	make bench BENCH_ARGS="-maskrelay a=/tmp/old,b=/tmp/new -peers a,b,haproxy-http"
//
// The relay under test gets one half of the processors, the load generator and the vendor stand-in the other. Rounds are interleaved: in each,
// every peer is started anew, proven by a canary, measured and ended. The result is a Markdown report of medians and ratios on standard output
// and, with -svg, a chart.
//
// # Cells
//
//   - rate: connect, CONNECT with credentials, one byte there and back, close; closed loop of 64 and 512 workers.
//   - hold: 2,000 and then 9,000 tunnels, each used for 4 KiB there and back; what one more costs, and echo through one while they are held.
//   - pending: the same for handshakes that the vendor does not answer.
//   - burst: 9,500 tunnels with 512 at a time in their handshake.
//   - bulk: zeros through 1 and 16 tunnels, each way.
//   - bulk-user: the same with 16 tunnels, the relay not being root, and 1,000 idle tunnels beside.
//   - http: GETs of 1 KiB in absolute form on 64 kept connections.
//
// # Reading it
//
// CPU time is the user and system time of all processes of the peer. On loopback a sender is charged the kernel's work for its receiver, so
// the figures are for comparing, not for sizing. CPU time is steadier than rates, which end where the load's processors do. Every peer gets its
// vendor at an address of its own, so that ports waiting in TIME_WAIT are its own too; the generator dials from several loopback addresses. As
// root all of it runs in a network namespace with the whole range of source ports: with the usual 28,232 to one vendor, connect() would be
// what limits every relay.
//
// On a machine with other work, ratios say more than figures: they are taken within a round. The last note says how many cells had company.
//
// Kinds of peers: "chain" does the whole job, "pass" and "limit" only pass the customer's bytes or credentials on, so the load logs in with
// the vendor's. "direct" has no relay: its CPU is the vendor's.
package main
