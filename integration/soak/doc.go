// Package soak runs the built relay for minutes under a random mixture of everything that customers and vendors do, and looks at every byte.
//
// Customers and vendors are child processes of the test binary. Each tunnel's name says what is to pass: "s17-u4096-d9000-up.soak.example" is
// tunnel 17, whose customer sends 4,096 bytes and whose vendor sends 9,000, once the customer has half-closed. The number also says for which
// country and session he wishes, and which pool he chooses: of two HTTP gateways, one that speaks SOCKS5, or one that speaks TLS. Both ends make the bytes from the
// run's seed, compare each one that comes with what it must be, and report; the test compares the two reports and the relay's log line.
//
//	make soak                       five minutes; SOAK_TIME=1h for another time, RACE=1 for a relay with the race detector
//	SOAK_SEED=… make soak           the customers' choices of an earlier run (their timing is the machine's)
//
// Without SOAK_TIME the test is a short form of it. It starts nothing outside of loopback and ends by itself.
package soak
