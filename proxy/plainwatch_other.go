//go:build !unix

package proxy

import "net"

// canWatch is false here: net/http looks for the customer's end itself.
const canWatch = false

func hasLeft(*net.TCPConn) bool { return false }

func hasUnread(*net.TCPConn) bool { return false }
