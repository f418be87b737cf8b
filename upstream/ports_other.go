//go:build !linux

package upstream

import (
	"context"
	"syscall"
)

// portWindows reports whether this system can bound one socket's local ports.
const portWindows = false

// outgoing has nothing to prepare here.
func outgoing(Dial) func(context.Context, string, string, syscall.RawConn) error { return nil }
