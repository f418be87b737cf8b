package audit

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"maskrelay/masking"
	"maskrelay/upstream/upstreamtest"
)

// exchange is one request of the matrix.
type exchange struct {
	spot Spot
	h    *upstreamtest.Hostility
}

// odd reports whether tunnels, if any open, may carry nothing, or not the target's bytes.
func (e *exchange) odd() bool { return e.h.Breaks || !e.h.Serves }

// run plays one exchange and judges it.
func (st *stage) run(ctx context.Context, e *exchange) verdict {
	before := st.marker()
	t := st.visit(ctx, e)
	st.settle(ctx)
	j := judgement{st: st, e: e, t: &t, v: verdict{spot: e.spot}}
	j.vendor = st.gatewayConns()[before.vendor:]
	j.echo = st.echo.Conns()[before.echo:]
	j.site = st.site.Conns()[before.site:]
	j.customerSide()
	j.vendorSide()
	j.targetSide()
	j.answer()
	return j.v
}

// judgement is the look at all that an exchange has left.
type judgement struct {
	st                 *stage
	e                  *exchange
	t                  *taken
	vendor, echo, site []*upstreamtest.ConnRecord
	v                  verdict
}

func (j *judgement) found(leaks []Leak) {
	for _, l := range leaks {
		l.Spot = j.e.spot
		j.v.leaks = append(j.v.leaks, l)
	}
}

func (j *judgement) problem(excerpt []byte, format string, args ...any) {
	text := ""
	if len(j.st.toCustomer.scan("", excerpt)) == 0 {
		text = shown(excerpt)
	}
	j.v.problems = append(j.v.problems, Failure{Spot: j.e.spot, Problem: fmt.Sprintf(format, args...), Excerpt: text})
}

// customerSide scans what the customer received: every byte of heads, of the relay's own
// replies and of errors, also as a client unpacks them. What came through a tunnel is the
// target's, and so is the body of an answer below 400: no relay can tell a page that a
// vendor has invented from one in which a target writes about that vendor.
func (j *judgement) customerSide() {
	t := j.t
	head := t.bytes
	switch {
	case t.response != nil && opens(j.e.spot.Way, t.response.StatusCode):
		head = head[:len(head)-len(tail(t.bytes, t.after))]
	case t.response != nil && t.response.StatusCode < 400:
		head = headsOf(t.bytes)
		head = append(bytes.Clone(head), trailersOf(t)...)
	}
	j.found(j.st.toCustomer.scan(j.st.toCustomer.who, head))
	if t.response == nil || t.response.StatusCode < 400 {
		return
	}
	method := http.MethodGet
	if j.e.spot.Way == Connect {
		method = http.MethodConnect
	}
	for _, reading := range readings(method, t.bytes) {
		for _, l := range j.st.toCustomer.scan(j.st.toCustomer.who+" (unpacked)", reading) {
			if !slices.ContainsFunc(j.v.leaks, func(o Leak) bool { return o.Mark == l.Mark }) {
				j.found([]Leak{l})
			}
		}
	}
}

// tail is the end of b that begins where the tunnel's bytes do.
func tail(b, after []byte) []byte {
	if i := bytes.LastIndex(b, after); len(after) > 0 && i >= 0 {
		return b[i:]
	}
	return nil
}

// headsOf are the heads at the beginning of b, interim ones too.
func headsOf(b []byte) []byte {
	end := 0
	for {
		i := bytes.Index(b[end:], []byte("\r\n\r\n"))
		if i < 0 {
			return b
		}
		interim := bytes.HasPrefix(b[end:], []byte("HTTP/1.1 1"))
		end += i + 4
		if !interim {
			return b[:end]
		}
	}
}

// trailersOf are the fields behind a chunked body.
func trailersOf(t *taken) []byte {
	var b bytes.Buffer
	_ = t.response.Trailer.Write(&b) // a buffer takes everything
	return b.Bytes()
}

func received(records []*upstreamtest.ConnRecord) (all []byte) {
	for _, r := range records {
		all = append(all, r.Received()...)
	}
	return all
}

// vendorSide scans what the vendor received, and looks for fields that the relay should
// have kept or not have added.
func (j *judgement) vendorSide() {
	w := j.st.toVendor
	j.found(w.scan(w.who, received(j.vendor)))
	for _, r := range j.vendor {
		for _, request := range r.Requests() {
			j.fields(w.who, request, "Proxy-Authorization")
		}
	}
}

// targetSide does the same for the target. Of a tunnel it gets the customer's bytes, and
// no other.
func (j *judgement) targetSide() {
	w := j.st.toTarget
	site := received(j.site)
	j.found(w.scan(w.who, site))
	for _, r := range j.site {
		for _, request := range r.Requests() {
			j.fields(w.who, request, "Connection") // the stand-in's own
		}
	}
	echo := received(j.echo)
	j.found(w.scan(w.who, echo))
	if !bytes.HasPrefix(canary(), echo) {
		j.problem(echo, "the target of a tunnel got other bytes than the customer's")
	}
}

// fields judges the names of a request's fields. more are those that whoever is in between
// may add.
func (j *judgement) fields(who string, request *upstreamtest.RecordedRequest, more ...string) {
	allowed := append([]string{"Host"}, more...)
	switch {
	case request.Method == http.MethodConnect:
	case j.e.spot.Way == Plain:
		allowed = append(allowed, "User-Agent", "Accept")
	case j.e.spot.Way == Websocket:
		allowed = append(allowed, "User-Agent", "Connection", "Upgrade", "Sec-WebSocket-Version", "Sec-WebSocket-Key")
	}
	for _, line := range request.Lines {
		name, _, _ := strings.Cut(line, ":")
		is := func(other string) bool { return strings.EqualFold(name, other) }
		switch {
		case slices.ContainsFunc(allowed, is):
		case slices.ContainsFunc(judgedFields, is):
			j.found([]Leak{{Where: who, Mark: "field that names the customer", Offset: int64(bytes.Index(request.Raw, []byte(line))), Excerpt: name}})
		default:
			j.found([]Leak{{Where: who, Mark: "field that the customer did not send", Offset: int64(bytes.Index(request.Raw, []byte(line))), Excerpt: name}})
		}
	}
}

// answer judges whether the customer got what he must get.
func (j *judgement) answer() {
	t := j.t
	switch {
	case t.late:
		j.problem(t.bytes, "no whole answer in %s", j.st.config.patience())
	case len(t.bytes) == 0 && j.e.h.Breaks: // it broke before it began
	case len(t.bytes) == 0:
		j.problem(nil, "no answer: %v", t.err)
	case t.response == nil:
		j.problem(t.bytes, "not an HTTP answer")
	case opens(j.e.spot.Way, t.response.StatusCode):
		j.opened()
	case isOwn(t):
		j.ownReply()
	default:
		j.passed()
	}
}

// opened judges a tunnel.
func (j *judgement) opened() {
	t := j.t
	if !j.e.h.Serves && !j.e.h.Breaks {
		j.problem(headsOf(t.bytes), "a tunnel opened where the vendor did not serve")
		return
	}
	if j.e.spot.Way == Connect && !bytes.HasPrefix(t.bytes, []byte(masking.Established)) {
		j.problem(headsOf(t.bytes), "the answer to CONNECT is not the fixed one")
	}
	reached := len(j.echo) > 0 || len(j.site) > 0
	if reached && !j.e.odd() && !bytes.HasSuffix(t.after, canary()) {
		j.problem(nil, "the tunnel did not carry the bytes there and back: %d of %d came", len(t.after), len(canary()))
	}
}

// isOwn reports whether an answer is the relay's own.
func isOwn(t *taken) bool {
	return strings.Contains(t.response.Header.Get("Proxy-Status"), "; error=")
}

// ownFields are those that the relay's own replies may have.
var ownFields = []string{"Connection", "Content-Length", "Content-Type", "Proxy-Authenticate", "Proxy-Status", "Retry-After"}

// splitInterim splits an answer into the interim heads that came first and the rest.
func splitInterim(b []byte) (interim []string, final []byte) {
	for bytes.HasPrefix(b, []byte("HTTP/1.1 1")) {
		i := bytes.Index(b, []byte("\r\n\r\n"))
		if i < 0 {
			break
		}
		interim, b = append(interim, string(b[:i+4])), b[i+4:]
	}
	return interim, b
}

// ownReply judges a reply of the relay's own.
func (j *judgement) ownReply() {
	t := j.t
	status := t.response.StatusCode
	interim, final := splitInterim(t.bytes)
	j.v.reply, j.v.status = final, status
	for _, head := range interim {
		j.problem([]byte(head), "an interim answer of the vendor's was passed on")
	}
	for name := range t.response.Header {
		if !slices.Contains(ownFields, name) {
			j.problem(t.bytes, "the relay's own reply has the field %s", name)
		}
	}
	if t.bodyErr != nil || t.response.Header.Get("Content-Length") != strconv.Itoa(len(t.body)) {
		j.problem(t.bytes, "the relay's own reply has no exact Content-Length")
	}
	switch {
	case !j.e.odd():
		j.problem(t.bytes, "%d where the vendor served", status)
	case status == http.StatusBadGateway || status == http.StatusGatewayTimeout:
	case status == http.StatusProxyAuthRequired && j.st.subject.OwnLogin:
	default:
		j.problem(t.bytes, "%d for a fault of the vendor's", status)
	}
}

// passed judges an answer that the relay has passed on. A plain one may be a vendor's that
// nothing tells from a target's: then it tells nobody of the vendor either.
func (j *judgement) passed() {
	t := j.t
	if t.bodyErr != nil {
		return // it broke off, and the customer knows
	}
	if j.e.spot.Way != Plain && !j.e.h.Serves && !j.e.h.Breaks {
		j.problem(headsOf(t.bytes), "the vendor's own answer was passed on, with status %d", t.response.StatusCode)
		return
	}
	if j.e.h.Serves && !j.e.h.Breaks && len(j.site) > 0 && !bytes.Equal(t.body, page()) && j.e.spot.Way == Plain {
		j.problem(headsOf(t.bytes), "the target's page did not come as it is: %d of %d bytes", len(t.body), len(page()))
	}
}

// closes reports whether a reply says that the connection ends.
func closes(reply []byte) bool {
	return bytes.Contains(headsOf(reply), []byte("\r\nConnection: close\r\n"))
}
