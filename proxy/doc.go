// Package proxy is the relay's front: it accepts customers, checks who they are
// and what they may, and hands their connections on.
//
// One exchange goes through the gate in this order, and each step's refusal is a
// fixed reply (see the table in outcome.go): shape of the request (400), client
// address (403), credentials (407), account (403), what the username asks of the
// vendor (400, in words of its own), quota (402), target (403), the customer's cap and
// rate (429), room on the relay (503). A CONNECT or a websocket then
// becomes a tunnel (package tunnel); a plain request goes through goproxy with a
// transport that knows gateways only (package upstream) and is filtered both ways
// (package masking).
//
// A plain, well-formed CONNECT does not pass through net/http. Where the tunnel's engine
// has reactors it accepts the customers of plain listeners itself and shows what they
// send to a visitor, which has a strict parser of its own (parseConnect), runs the same
// gate and answers with the same bytes. Everything else, right or wrong, goes on to
// net/http and goproxy unread: other methods, unusual heads, heads that trickle,
// passwords that are yet to be compared. Behind TLS and on other systems net/http reads
// all heads.
//
// The second parser is worth its place: BenchmarkConnect spends 70 µs of CPU and 12.6 KB
// of garbage less for each tunnel (220 against 290 µs, 2 against 14.7 KB, customer and
// vendor included; 4 cores of an AMD EPYC, Go 1.26, November 2026), and a connection whose
// head is awaited has no goroutine. FuzzParseConnect holds it to net/http: what it takes
// is read there with the same content, and what is refused there it never takes.
//
// What net/http reads passes incoming first, which is stricter: bare LF, folded lines, two
// framings and whatever else two readers could take differently is refused with 400 (RFC
// 9112 §11.2), chunked bodies are read byte for byte, and net/http gets one message at a
// time. One empty line before a request is skipped; chunk extensions are dropped, as are
// trailers that were not announced; Host need not agree with an absolute-form, as the
// target's leaves in its place; "Upgrade: h2c" is dropped. A CONNECT may lack Host. A
// connection of HTTP/1.0 carries one request. FuzzIncoming holds it to http.ReadRequest.
//
// goproxy is set up to fail closed: it never dials, never tunnels, never
// intercepts, and never writes an error text of its own. net/http's own error
// replies (400, 431, 417, 505) are replaced on the connection that it writes them
// to, see frontConn.
//
// The package refuses to send a customer anything that is not in the reply table,
// a filtered response of a target, or the bytes of a tunnel.
package proxy
