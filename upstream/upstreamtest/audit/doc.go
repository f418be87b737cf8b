// Package audit proves a relay's mask: it puts the relay between a hostile vendor and a
// proxy judge, sends a customer's requests through it in every way that there is, and
// looks at every byte that customer, vendor and target received.
//
// It knows the relay from outside only: see [Subject]. Nothing leaves this machine.
package audit
