//go:build !race

package soak

// raceDetector reports whether the relay under test has it.
const raceDetector = false
