package masking

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Established is the whole answer to a CONNECT whose tunnel is open: no field, so nothing to tell a gateway by.
const Established = "HTTP/1.1 200 Connection established\r\n\r\n"

// maxDrain is how much of an unread request body Serve reads to keep a connection; net/http gives up at the same size.
const maxDrain = 256 << 10

// drainTime bounds how long a refused request's body is waited for, by Serve and by net/http after it.
const drainTime = time.Second

// ReplySpec is one row of the caller's table of replies. All text is constant; nothing of a request or an error belongs in it.
type ReplySpec struct {
	Status     int    // 400..599; anything else becomes 502
	Text       string // one sentence; the body is Text + "\n"
	ProxyError string // RFC 9209 §2.3 error type; "" or what is no token = no Proxy-Status field
	RetryAfter int    // seconds; 0 or less = no Retry-After
	Challenge  bool   // adds Proxy-Authenticate: Basic realm="<brand>"
}

// Reply is one fixed message to a customer, rendered once. It is immutable and safe for concurrent use.
type Reply struct {
	status       int
	body         string
	fields       []field // sorted by name, as net/http writes them
	open, closed []byte
}

type field struct{ name, value string }

// NewReply renders s in the name of b. A Brand that ParseBrand would refuse is replaced by "Proxy".
func NewReply(b Brand, s ReplySpec) *Reply {
	if _, err := ParseBrand(string(b)); err != nil {
		b = fallbackBrand
	}
	r := &Reply{status: s.Status, body: s.Text + "\n"}
	if s.Status < 400 || s.Status > 599 {
		r.status = http.StatusBadGateway
	}
	r.fields = append(r.fields,
		field{"Content-Length", strconv.Itoa(len(r.body))},
		field{"Content-Type", "text/plain"})
	if s.Challenge {
		r.fields = append(r.fields, field{"Proxy-Authenticate", `Basic realm="` + string(b) + `"`})
	}
	if isStructuredToken(s.ProxyError) {
		r.fields = append(r.fields, field{"Proxy-Status", b.structured() + "; error=" + s.ProxyError})
	}
	if s.RetryAfter > 0 {
		r.fields = append(r.fields, field{"Retry-After", strconv.Itoa(s.RetryAfter)})
	}
	r.open, r.closed = r.render(false), r.render(true)
	return r
}

func (r *Reply) render(closing bool) []byte {
	var b strings.Builder
	reason := http.StatusText(r.status)
	if reason == "" { // what net/http writes for a status without a name
		reason = "status code " + strconv.Itoa(r.status)
	}
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", r.status, reason)
	if closing {
		b.WriteString("Connection: close\r\n") // sorts before every other field
	}
	for _, f := range r.fields {
		b.WriteString(f.name + ": " + f.value + "\r\n")
	}
	b.WriteString("\r\n" + r.body)
	return []byte(b.String())
}

// Status returns the status code.
func (r *Reply) Status() int { return r.status }

// Bytes returns the whole message for a raw connection, with Connection: close if the caller is going to close it. It includes the
// body: a HEAD request needs Head. The slice is shared; callers must not modify it.
func (r *Reply) Bytes(close bool) []byte {
	if close {
		return r.closed
	}
	return r.open
}

// Head returns what Bytes does without the body, for a request by HEAD. The slice is shared; callers must not modify it.
func (r *Reply) Head(close bool) []byte {
	whole := r.Bytes(close)
	return whole[: len(whole)-len(r.body) : len(whole)-len(r.body)]
}

// Serve writes the reply through net/http and drops whatever stood in w.Header(). On the wire are the bytes of Bytes(false) if the
// connection goes on and those of Bytes(true) if it ends: no Date, no sniffed Content-Type, exact Content-Length, no body for HEAD.
//
// The connection ends if close is set, if the request asked for it, if it is HTTP/1.0 (RFC 9112 §9.3: a proxy keeps none of those;
// net/http then also writes HTTP/1.0 in the status line), or if a body is left that is not worth reading: more than 256 KiB, or one
// that waits for 100 Continue. A smaller body is read here; if it has not come after a second the connection ends as well. A server
// that is shutting down puts the same Connection: close last instead of first. Serve reports whether it asked for the end. A caller
// who has the connection under net/http can put Bytes or Head in the place of these two exceptions.
func (r *Reply) Serve(w http.ResponseWriter, req *http.Request, close bool) (ends bool) {
	h := w.Header()
	clear(h)
	h["Date"] = nil // present but empty: net/http adds none
	values := make([]string, len(r.fields))
	for i, f := range r.fields {
		values[i] = f.value
		h[f.name] = values[i : i+1 : i+1]
	}
	if hasBody(req) {
		// net/http sets a new deadline before the next request. A writer without deadlines is no network connection.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(drainTime))
	}
	if ends = close || endsConnection(req); ends {
		h["Connection"] = []string{"close"}
	}
	w.WriteHeader(r.status)
	if req.Method != http.MethodHead {
		// A failed write is a customer who left; net/http ends the connection on its own.
		_, _ = io.WriteString(w, r.body)
	}
	return ends
}

// endsConnection reports whether net/http would close the connection after a reply to req, or ought to. It must know before the
// header is written: net/http appends its own Connection field behind the sorted ones. It errs on the side of closing.
func endsConnection(req *http.Request) bool {
	if !req.ProtoAtLeast(1, 1) || req.Close || mentions(req.Header["Connection"], "close") {
		return true
	}
	if !hasBody(req) {
		return false
	}
	if req.ContentLength > maxDrain || mentions(req.Header["Expect"], "100-continue") {
		return true
	}
	_, err := io.CopyN(io.Discard, req.Body, maxDrain+1)
	return !errors.Is(err, io.EOF)
}

func hasBody(req *http.Request) bool {
	return req.Body != nil && req.Body != http.NoBody && req.ContentLength != 0
}

func mentions(values []string, token string) bool {
	for _, v := range values {
		if strings.Contains(strings.ToLower(v), token) {
			return true
		}
	}
	return false
}
