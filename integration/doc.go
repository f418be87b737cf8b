// Package integration tests the built maskrelay binary from outside: real load balancers in front of it (started from the very files
// in haproxy and nginx that operators deploy), real proxies behind it as vendors, real clients as customers, all on loopback.
//
// Every byte a customer receives is searched for the vendor's name, address, realm and credentials, and every byte that vendor and target
// receive for the customer's name, password and address, by taps that stand on both sides of the relay.
//
// The tests of a fleet (fleet*_test.go) have several relays with a real Redis between them, and take it away, freeze it and empty it.
//
// The tests of abuse (abuse*_test.go) set a mob on a relay, and hold what a well-behaved customer gets beside it, and the relay's memory and
// descriptors, to bars.
//
// The outside programs come from Debian's packages and npm (install-parts.sh). A test whose program is missing is skipped by its name,
// and fails where the environment says CI=true.
package integration
