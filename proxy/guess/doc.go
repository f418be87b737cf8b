// Package guess slows down those who guess passwords, without locking out those who know
// theirs.
//
// Failed logins are counted by client network (an IPv4 address, an IPv6 /64, and with
// eight times the allowance its /48) and by name. Whoever is over his allowance is sent
// away before anybody looks at his password:
//
//	if wait := throttle.Check(client, name); wait > 0 {
//		// answer 429 with Retry-After: wait
//	}
//	// compare the password, then
//	throttle.Failed(client, name) // or Succeeded
//
// A network from which a name logged in within the last hour is not held up for that
// name. So neither a guesser behind the same NAT or balancer, nor one who floods a name
// from everywhere, locks a customer out where he is known. The price: from such a network
// his password may be guessed as fast as passwords are compared, and a guesser there can
// tell, once he is throttled for others, which names are in use beside him. Where all
// customers come by one address, because a balancer does not say whose connections they
// are, the allowance per address is everybody's, and guessing at names in use is not slowed.
//
// Known and unknown names are counted alike, and a call takes the same time for both:
// it depends on whether the name logged in lately from that network, and on nothing else.
// Attempts under way when an allowance runs out are compared all the same; how many that
// are is bounded by whoever compares.
//
// Memory is fixed: some 3 MB. The package neither waits, nor logs, nor keeps names:
// it remembers 64-bit keyed hashes.
package guess
