// Package lab starts and watches what the black-box tests of maskrelay need: the built binary, other programs, TCP taps that
// search what passes, and, in child processes of the test binary, a load generator and a vendor to load.
//
// It is for tests of this module only. Everything it starts is ended and waited for by the test's cleanup, and listens on loopback.
package lab
