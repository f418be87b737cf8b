package upstreamtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// adder returns a function that appends a hostility for each of the behaviours to all.
func adder(all *[]Hostility) func(h Hostility, behaviours map[string]Behaviour) {
	return func(h Hostility, behaviours map[string]Behaviour) {
		for name, b := range behaviours {
			h.Name, h.HTTP = name, b
			*all = append(*all, h)
		}
	}
}

// endingHostilities leave early, late, or begin before they are asked.
func endingHostilities() []Hostility {
	all := resetsAtEveryByte()
	add := adder(&all)
	add(Hostility{Ways: everyWay}, map[string]Behaviour{
		"refused-linger":         unframed(502, "NO_PEER", HalfClose),
		"refused-no-linger":      unframed(502, "NO_PEER", Close),
		"refused-half-a-page":    cutPage(Close),
		"refused-half-and-reset": cutPage(RST),
		"refused-half-and-open":  cutPage(KeepOpen),
		"first-407":              first{bytes: "HTTP/1.1 407 {brand}\r\nProxy-Authenticate: Basic realm=\"{brand}\"\r\nContent-Length: 0\r\n\r\n"},
		"first-502":              first{bytes: "HTTP/1.1 502 {brand}\r\nServer: {brand}\r\nContent-Length: 7\r\n\r\n{lower}"},
		"first-banner":           first{bytes: "220 {host} ESMTP {brand}\r\n\r\n"},
		"first-and-gone":         first{bytes: "HTTP/1.1 503 {brand}\r\nServer: {brand}\r\nContent-Length: 0\r\n\r\n", gone: true},
		"gone-at-once":           first{gone: true},
		"gone-at-once-by-reset":  first{gone: true, reset: true},
	})
	add(Hostility{Ways: ByConnect, Serves: true, Breaks: true}, map[string]Behaviour{
		"tunnel-glued":         EarlyData([]byte(gluedBytes)),
		"tunnel-glued-32k":     EarlyData([]byte(strings.Repeat(gluedBytes, 512))),
		"tunnel-glued-and-fin": once(glued, HalfClose),
		"tunnel-glued-and-rst": once(glued, RST),
		"tunnel-half-open":     Cut(1),
	})
	add(Hostility{Ways: ByPlain, Serves: true, Breaks: true}, map[string]Behaviour{
		"half-answer-close":      serves(meddling{half: true, ending: Close}),
		"half-answer-reset":      serves(meddling{half: true, ending: RST}),
		"half-answer-fin":        serves(meddling{half: true, ending: HalfClose}),
		"half-chunks-close":      serves(meddling{half: true, ending: Close, extension: ";{brand}"}),
		"half-chunks-reset":      serves(meddling{half: true, ending: RST, extension: ";{brand}"}),
		"chunk-extension-4k":     serves(meddling{extension: ";by=" + strings.Repeat("{lower}", 400)}),
		"trailers-oversized":     serves(meddling{trailers: manyTrailers()}),
		"trailer-line-oversized": serves(meddling{trailers: []string{"X-{brand}: " + strings.Repeat("{lower}", 4000)}}),
	})
	add(Hostility{Ways: ByPlain, Breaks: true}, map[string]Behaviour{
		"body-alone-at-20k": page{status: 502, reason: "Bad Gateway", body: strings.Repeat("padding ", 2500) + "{brand}" + strings.Repeat(" padding", 100)}.answer(),
	})
	add(Hostility{Ways: ByPlain, Serves: true, Breaks: true, Waits: true}, map[string]Behaviour{
		"half-answer-open":  serves(meddling{half: true, ending: KeepOpen}),
		"half-answer-stall": serves(meddling{half: true, ending: Stall}),
		"half-chunks-open":  serves(meddling{half: true, ending: KeepOpen, extension: ";{brand}"}),
	})
	return slices.Concat(all, silences(), handshakeHostilities())
}

// silences are vendors who say no more.
func silences() []Hostility {
	var all []Hostility
	add := adder(&all)
	add(Hostility{Ways: everyWay, Waits: true}, map[string]Behaviour{
		"stall-mid-head":    midHead(Stall),
		"silent-first-byte": text("H", KeepOpen),
		"silent-last-byte":  once(func(v *Vendor) []byte { h := v.established(); return h[:len(h)-1] }, KeepOpen),
		"first-half-a-head": first{bytes: "HTTP/1.1 200 {brand}\r\nX-{brand}: "},
	})
	hint := text("HTTP/1.1 103 {brand}\r\nLink: <https://{host}/>\r\n\r\n", KeepOpen)
	add(Hostility{Ways: byTunnels, Waits: true}, map[string]Behaviour{"silent-after-1xx": hint})
	add(Hostility{Ways: ByPlain, Waits: true, Breaks: true}, map[string]Behaviour{"silent-after-1xx-plain": hint})
	return all
}

// handshakeHostilities are answers to websocket handshakes in the target's place.
func handshakeHostilities() []Hostility {
	var all []Hostility
	add := adder(&all)
	add(Hostility{Ways: ByWebsocket}, map[string]Behaviour{
		"handshake-garbage": inTunnel("{brand} says no\r\n\r\n", HalfClose),
		"handshake-closed":  inTunnel("", Close),
		"handshake-reset":   inTunnel("", RST),
		"handshake-half":    inTunnel("HTTP/1.1 101 {brand}\r\nUpgrade: websocket\r\nX-{brand}: ", Close),
		"handshake-http2":   inTunnel("HTTP/2.0 101 {brand}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", HalfClose),
		"handshake-refused": inTunnel("HTTP/1.1 502 {brand}\r\nX-{brand}-Error: 1\r\nContent-Length: 7\r\n\r\n{brand}", HalfClose),
		"handshake-407":     inTunnel("HTTP/1.1 407 {brand}\r\nProxy-Authenticate: Basic realm=\"{brand}\"\r\nContent-Length: 0\r\n\r\n", HalfClose),
		"handshake-moved":   inTunnel("HTTP/1.1 302 Found\r\nLocation: https://{host}/\r\nContent-Length: 0\r\n\r\n", HalfClose),
	})
	add(Hostility{Ways: ByWebsocket, Waits: true}, map[string]Behaviour{
		"handshake-silent":     inTunnel("", KeepOpen),
		"handshake-half-a-101": inTunnel("HTTP/1.1 101 {brand}\r\nUpgrade: websocket\r\nX-{brand}: ", KeepOpen),
	})
	return all
}

// inTunnel opens a tunnel and answers what is asked in it, as a gateway does that serves
// tunnels to port 80 itself.
func inTunnel(answer string, then Ending) Behaviour {
	return Func(func(ctx context.Context, c *Conn, _ *RecordedRequest) {
		if c.write(c.vendor.established()) != nil {
			return
		}
		if _, err := c.ReadRequest(); err == nil && c.write(c.vendor.expand(answer)) == nil {
			finish(ctx, c, then)
		}
	})
}

// gluedBytes are like a target's that speaks first.
const gluedBytes = "220 mail.example ESMTP ready, go ahead and say HELO please !!!\r\n"

// glued is the 200 with a target's first words in the same write.
func glued(v *Vendor) []byte { return append(v.established(), gluedBytes...) }

func manyTrailers() []string {
	lines := make([]string, 1000)
	for i := range lines {
		lines[i] = fmt.Sprintf("X-{brand}-%04d: {trace}", i)
	}
	return lines
}

// cutPage refuses with half of the page that its length announces.
func cutPage(then Ending) Behaviour {
	return once(func(v *Vendor) []byte {
		b := v.loudReply(502, "NO_PEER")
		return b[:len(b)-20]
	}, then)
}

// resetsAtEveryByte are resets behind each number of bytes of the 200 of a vendor of [DefaultBrand].
func resetsAtEveryByte() []Hostility {
	v := &Vendor{config: VendorConfig{Brand: DefaultBrand}}
	var all []Hostility
	for n := range len(v.established()) {
		all = append(all, Hostility{Name: fmt.Sprintf("reset-at-%03d", n), Ways: everyWay, HTTP: once(func(v *Vendor) []byte {
			head := v.established()
			return head[:min(n, len(head)-1)]
		}, RST)})
	}
	return all
}

// first is a vendor who speaks as soon as he has accepted. What he is asked then is read and not answered.
type first struct {
	bytes string
	gone  bool // he does not stay to be asked
	reset bool // and leaves with a reset
}

// open says the words.
func (f first) open(_ context.Context, c *Conn) bool {
	if f.bytes != "" && c.write(c.vendor.expand(f.bytes)) != nil {
		return false
	}
	if f.reset {
		_ = c.Reset() // nothing follows
	}
	return !f.gone
}

// Serve reads on.
func (f first) Serve(_ context.Context, c *Conn, _ *RecordedRequest) { drain(c) }
