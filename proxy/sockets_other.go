//go:build !linux

package proxy

import (
	"net"
	"time"
)

// listenConfig leaves the options to Go's net, which sets them on each connection.
func listenConfig(time.Duration) net.ListenConfig {
	return net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
	}}
}
