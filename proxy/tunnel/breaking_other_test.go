//go:build !linux

package tunnel

import "testing"

var breakingSuite map[string]func(*testing.T)
