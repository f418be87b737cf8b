// Package proxy is the relay's front: it accepts customers, checks who they are
// and what they may, and hands their connections on.
//
// One exchange goes through the gate in this order, and each step's refusal is a
// fixed reply (see the table in outcome.go): shape of the request (400), client
// address (403), credentials (407), account (403), target (403), the customer's
// cap and rate (429), room on the relay (503). A CONNECT or a websocket then
// becomes a tunnel (package tunnel); a plain request goes through goproxy with a
// transport that knows gateways only (package upstream) and is filtered both ways
// (package masking).
//
// goproxy is set up to fail closed: it never dials, never tunnels, never
// intercepts, and never writes an error text of its own. net/http's own error
// replies (400, 431, 417, 505) are replaced on the connection that it writes them
// to, see frontConn.
//
// The package refuses to send a customer anything that is not in the reply table,
// a filtered response of a target, or the bytes of a tunnel.
package proxy
