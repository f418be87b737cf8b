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
// Who has not said who he is, by a login that is good or, without logins, by a request, is a
// stranger: his PROXY header, TLS handshake or head is awaited, or he was refused and kept.
// Strangers get what room tunnels leave, a quarter of all places at most for one address
// (IPv6: one /64), and never a slot. When there is no room for another one, he goes who has
// waited longest: of the address that is over its share, of the newcomer's if that has more
// than half of one, or of all. Balancers of which a PROXY header is awaited have no share; a
// balancer that sends none makes all customers one address, which is why the share is so
// large. While the host is short of memory there are no more of them than SpareConns. What
// one takes of the process: 2 KB while the engine has him (9 with the largest head that it
// keeps), 16 KB in net/http (48 so), 36 KB behind TLS (BenchmarkStrangersMemory). The time
// for a head is one from its first byte on, and from the connection's for the first.
//
// TLS handshakes compute a few at once, in turn by address (see handshakes), and read no
// more than 16 KB.
//
// goproxy is set up to fail closed: it never dials, never tunnels, never
// intercepts, and never writes an error text of its own. net/http's own error
// replies (400, 431, 417, 505) are replaced on the connection that it writes them
// to, see frontConn.
//
// The package refuses to send a customer anything that is not in the reply table,
// a filtered response of a target, or the bytes of a tunnel.
package proxy
