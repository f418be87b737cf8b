//go:build !unix

package upstreamtest

import "net"

// unread would return what the peer has sent and nobody has read.
func unread(*net.TCPConn) []byte { return nil }
