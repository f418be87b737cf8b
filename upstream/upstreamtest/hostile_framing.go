package upstreamtest

import (
	"strings"
	"time"
)

// brokenHeads are answers that no careful reader takes for one, by name. Each is a fault in every way.
var brokenHeads = map[string]string{
	"te-unknown":            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n7\r\n{brand}\r\n0\r\n\r\n",
	"te-twice":              "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n{brand}",
	"te-list":               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n{brand}",
	"te-identity":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n{brand}",
	"te-quoted":             "HTTP/1.1 200 OK\r\nTransfer-Encoding: \"chunked\"\r\n\r\n{brand}",
	"te-spaced-colon":       "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n{brand}",
	"te-empty":              "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n{brand}",
	"length-list":           "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n{brand}",
	"length-plus":           "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n{brand}",
	"length-hex":            "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n{brand}",
	"length-empty":          "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n{brand}",
	"length-text":           "HTTP/1.1 200 OK\r\nContent-Length: {brand}\r\n\r\n{brand}",
	"length-fraction":       "HTTP/1.1 200 OK\r\nContent-Length: 5.0\r\n\r\n{brand}",
	"length-spaced-colon":   "HTTP/1.1 200 OK\r\nContent-Length : 7\r\n\r\n{brand}",
	"version-1.2":           "HTTP/1.2 200 {brand}\r\n\r\n",
	"version-1.10":          "HTTP/1.10 200 {brand}\r\n\r\n",
	"version-0.9":           "HTTP/0.9 200 {brand}\r\n\r\n",
	"version-3":             "HTTP/3 200 {brand}\r\n\r\n",
	"version-none":          "HTTP 407 {brand}\r\n\r\n",
	"version-icy":           "ICY 200 {brand}\r\n\r\n",
	"leading-space":         " HTTP/1.1 200 {brand}\r\n\r\n",
	"leading-line":          "\r\nHTTP/1.1 200 {brand}\r\n\r\n",
	"leading-byte-mark":     "\xef\xbb\xbfHTTP/1.1 200 {brand}\r\n\r\n",
	"leading-nul":           "\x00HTTP/1.1 200 {brand}\r\n\r\n",
	"leading-brand":         "{brand} HTTP/1.1 200 OK\r\n\r\n",
	"leading-noise":         "\xff\xfe\xfd{brand}\r\nHTTP/1.1 200 OK\r\n\r\n",
	"two-spaces":            "HTTP/1.1  200 {brand}\r\n\r\n",
	"tab-for-space":         "HTTP/1.1\t200 {brand}\r\n\r\n",
	"status-glued":          "HTTP/1.1 200{brand}\r\n\r\n",
	"status-000":            "HTTP/1.1 000 {brand}\r\n\r\n",
	"status-099":            "HTTP/1.1 099 {brand}\r\n\r\n",
	"status-text":           "HTTP/1.1 {brand} 200\r\n\r\n",
	"status-none":           "HTTP/1.1\r\nX-{brand}: 1\r\n\r\n",
	"status-exponent":       "HTTP/1.1 2e2 {brand}\r\n\r\n",
	"request-for-an-answer": "CONNECT {host}:443 HTTP/1.1\r\nHost: {host}\r\n\r\n",
	"socks-for-http":        "\x05\x00{brand}\r\n\r\n",
	"ssh-banner":            "SSH-2.0-{brand}\r\n\r\n",
	"proxy-header":          "PROXY TCP4 {exit} {exit} 1 2\r\nHTTP/1.1 200 {brand}\r\n\r\n",
	"json-for-http":         "{\"vendor\":\"{brand}\"}\r\n\r\n",
}

// plainBroken are faults for a plain request alone: a tunnel's reader drops what it need not understand.
var plainBroken = map[string]string{
	"bare-cr-in-head":  "HTTP/1.1 200 OK\r\nX-{brand}: a\rContent-Length: 5\r\n\r\n{brand}",
	"nul-in-reason":    "HTTP/1.1 200 \x00{brand}\r\n\r\n{brand}",
	"folded-first":     "HTTP/1.1 200 OK\r\n X-{brand}: a\r\n\r\n{brand}",
	"error-at-1.0":     "HTTP/1.0 502 {brand}\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{brand}\r\n0\r\n\r\n",
	"unasked-101":      "HTTP/1.1 101 {brand}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
	"error-odd-chunks": "HTTP/1.1 502 {brand}\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n{brand}\r\n",
}

// tunnelHeads are sloppy answers behind which a gateway serves; {brand} is in what a reader drops.
var tunnelHeads = map[string]string{
	"connect-nul":              "HTTP/1.1 200 OK\r\nX-{brand}: a\x00b\r\n\r\n",
	"connect-no-colon":         "HTTP/1.1 200 OK\r\n{brand}\r\n\r\n",
	"connect-bare-cr":          "HTTP/1.1 200 OK\r\nX-{brand}: a\rb\r\n\r\n",
	"connect-folded":           "HTTP/1.1 200 OK\r\nX-Node: a\r\n {brand}\r\n\r\n",
	"connect-empty-name":       "HTTP/1.1 200 OK\r\n: {brand}\r\n\r\n",
	"connect-mixed-line-ends":  "HTTP/1.1 200 {brand}\nVia: {brand}\r\nX-{brand}: 1\n\r\n",
	"connect-8bit-everywhere":  "HTTP/1.1 200 \xff{brand}\xfe\r\n\xfc\xfd: \x80{brand}\r\n\r\n",
	"connect-length-0-twice":   "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\nVia: {brand}\r\n\r\n",
	"connect-head-15k":         "HTTP/1.1 200 {brand}\r\nX-Blob: {brand}/" + strings.Repeat("b", 15_000) + "\r\n\r\n",
	"connect-upgrade":          "HTTP/1.1 200 {brand}\r\nUpgrade: h2c, {brand}\r\nConnection: Upgrade\r\n\r\n",
	"connect-trailer":          "HTTP/1.1 200 OK\r\nTrailer: X-{brand}-Checksum\r\n\r\n",
	"connect-http10-keepalive": "HTTP/1.0 200 {brand}\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n",
}

// tunnelBroken are faults for a CONNECT alone.
var tunnelBroken = map[string]string{
	"connect-204-length":         "HTTP/1.1 204 {brand}\r\nContent-Length: 11\r\n\r\n{brand}",
	"connect-200-length-short":   "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{brand}",
	"connect-200-length-spelled": "HTTP/1.1 200 OK\r\ncontent-LENGTH:\t7 \r\n\r\n{brand}",
	"connect-200-chunked-cut":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{brand}",
	"connect-200-both":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\n7\r\n{brand}",
	"connect-200-folded-length":  "HTTP/1.1 200 OK\r\nContent-Length:\r\n 7\r\n\r\n{brand}",
	"connect-200-body-gzip":      "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
}

// framingHostilities are answers whose heads are the trouble.
func framingHostilities() []Hostility {
	var all []Hostility
	add := func(h Hostility, bytes map[string]string, b func(string) Behaviour) {
		for name, s := range bytes {
			h.Name, h.HTTP = name, b(s)
			all = append(all, h)
		}
	}
	fault := func(s string) Behaviour { return text(s, HalfClose) }
	add(Hostility{Ways: everyWay}, brokenHeads, fault)
	add(Hostility{Ways: ByPlain}, plainBroken, fault)
	add(Hostility{Ways: byTunnels}, tunnelBroken, fault)
	add(Hostility{Ways: byTunnels, Serves: true}, tunnelHeads, relayReply)
	return append(all,
		Hostility{Name: "refused-endless-body", Ways: everyWay, HTTP: endless("HTTP/1.1 502 {brand}\r\nServer: {brand}\r\n\r\n", strings.Repeat("{brand} ", 100))},
		Hostility{Name: "refused-endless-chunks", Ways: everyWay,
			HTTP: endless("HTTP/1.1 502 {brand}\r\nServer: {brand}\r\nTransfer-Encoding: chunked\r\n\r\n", "4;{brand}\r\nmore\r\n")},
		Hostility{Name: "refused-endless-trailers", Ways: everyWay,
			HTTP: endless("HTTP/1.1 502 {brand}\r\nServer: {brand}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "X-{brand}-T: 1\r\n")},
		Hostility{Name: "refused-endless-chunk-line", Ways: everyWay,
			HTTP: endless("HTTP/1.1 502 {brand}\r\nServer: {brand}\r\nTransfer-Encoding: chunked\r\n\r\n1;", "{brand};")},
	)
}

// servedHostilities serve, and meddle with the answer's form.
func servedHostilities() []Hostility {
	var all []Hostility
	for name, m := range map[string]meddling{
		"1xx-102":       {before: "HTTP/1.1 102 {brand} works\r\nX-{brand}-Queue: 3\r\n\r\n"},
		"1xx-103":       {before: "HTTP/1.1 103 Early Hints\r\nLink: <https://{host}/>; rel=preconnect\r\nSet-Cookie: {lower}=1\r\n\r\n"},
		"1xx-199":       {before: "HTTP/1.1 199 {brand}\r\nX-Brd-Ip: {exit}\r\nProxy-Status: {host}\r\n\r\n"},
		"1xx-bare-lf":   {before: "HTTP/1.1 103 {brand}\nX-{brand}: 1\n\n"},
		"1xx-five":      {before: strings.Repeat("HTTP/1.1 103 {brand}\r\nLink: <https://{host}/>\r\n\r\n", 5)},
		"1xx-length":    {before: "HTTP/1.1 102 {brand}\r\nContent-Length: 0\r\n\r\n"},
		"answer-split":  {pace: pace{chunk: 1, delay: 50 * time.Microsecond}, reason: "{brand}"},
		"answer-slowly": {pace: pace{chunk: 16, delay: time.Millisecond}, reason: "{brand}"},
	} {
		all = append(all, Hostility{Name: name, Ways: everyWay, Serves: true, HTTP: serves(m)})
	}
	for name, m := range map[string]meddling{
		"chunk-extension":          {extension: ";by={brand}"},
		"chunk-extension-quoted":   {extension: `;by="{brand} peer; x"`},
		"chunk-extension-spaced":   {extension: " ; {lower}\t= 1 "},
		"chunk-extension-900":      {extension: ";by={lower}" + strings.Repeat("x", 880)},
		"trailers-brand":           {trailers: []string{"X-{brand}-Checksum: 1", "X-Brd-Timeline: {trace}", "Server-Timing: gw;desc={lower}"}},
		"trailers-cookie":          {trailers: []string{"Set-Cookie: {lower}=1", "Location: https://{host}/", "Via: 1.1 {host}"}},
		"trailers-nominated":       {lines: []string{"Connection: X-Peer-Number"}, trailers: []string{"X-Peer-Number: {trace}"}},
		"trailers-base64":          {trailers: []string{"X-Trace: {base64}"}},
		"trailers-not-announced":   {extension: ";x", lines: []string{"X-Trailers: below"}, trailers: []string{"X-{brand}: 1"}},
		"length-and-chunked":       {extension: ";{brand}", lines: []string{"Content-Length: 3"}},
		"length-twice-and-chunked": {extension: ";{brand}", lines: []string{"Content-Length: 3", "Content-Length: 3"}},
		"poison-glued":             {behind: poisonAnswer},
		"poison-408":               {behind: "HTTP/1.1 408 {brand} Request Timeout\r\nServer: {brand}\r\nConnection: close\r\n\r\n"},
		"poison-garbage":           {behind: "{brand}\r\n{brand}\r\n"},
		"poison-chunked":           {extension: ";x", behind: poisonAnswer},
	} {
		all = append(all, Hostility{Name: name, Ways: ByPlain, Serves: true, HTTP: serves(m)})
	}
	return all
}

// poisonAnswer is a second answer to one request: whoever takes it gives it to the next customer.
const poisonAnswer = "HTTP/1.1 200 {brand}\r\nX-{brand}: poison\r\nContent-Length: 11\r\n\r\n{trace}"
