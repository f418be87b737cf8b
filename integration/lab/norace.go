//go:build !race

package lab

// raceEnabled reports whether this binary was built with the race detector, and so whether the relay under test is.
const raceEnabled = false
