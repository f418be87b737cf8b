// Package upstream is the vendor side of the relay: the gateways, which of them
// serves the next exchange, and how a tunnel or a plain request gets through one.
//
// A Gateway is configuration and never changes. A Pool holds the state: open
// connections, failures, the balance, local ports in use. Pool.Connect opens a tunnel
// with our own CONNECT or SOCKS5 handshake; Setup does the same in steps that never
// block, for an engine with its own sockets; Transport carries plain HTTP requests. All
// of them try the next gateway when one fails before anything was promised to the
// customer, and dial gateways and nothing else; only a direct:// gateway dials targets.
//
// What a gateway says is read for its cause and thrown away. Errors of this
// package name gateways and their words: they are for logs, never for customers.
// The package never logs.
package upstream
