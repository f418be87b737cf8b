package proxy

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"maskrelay/masking"
	"maskrelay/upstream"
)

const (
	aheadBytes   = 16 << 10               // of an error body, read before it is judged
	aheadTime    = 300 * time.Millisecond // waited for them
	guardedBytes = 8 << 10                // read at once from what follows
)

// GatewayMade tells a gateway's own answers to plain requests from a target's: by
// status, header and reason phrase, and for errors by the beginning of the body, unpacked
// if need be. What follows that beginning is searched as it passes, and cut off where it
// names the vendor. It is for upstream.Options.
func GatewayMade(policy *masking.Policy) upstream.GatewayMade {
	return func(response *http.Response) bool {
		p := policyFor(policy, response.Request.URL.Host, response.StatusCode)
		if p.GatewayMade(response.StatusCode, response.Header) {
			return true
		}
		if response.StatusCode < 400 {
			return false
		}
		if _, reason, _ := strings.Cut(response.Status, " "); p.GatewayReason(reason) {
			return true
		}
		if response.Body == http.NoBody {
			return false
		}
		return pageNames(p, response)
	}
}

// pageNames reports whether the beginning of an error's body names the vendor, or repeats
// the login that the gateway was sent. Else all of it is searched as it is read.
func pageNames(p *masking.Policy, response *http.Response) bool {
	marks := []*masking.Marks{p.ErrorMarks(readableText(response.Header))}
	if said := upstream.SentLogin(response); len(said) > 0 {
		marks = append(marks, masking.NewMarks(said...))
	}
	body := readAhead(response.Body)
	response.Body = body
	for _, m := range marks {
		response.Body = &guardedBody{body: response.Body, marks: m}
	}
	named := func(b []byte) bool {
		return slices.ContainsFunc(marks, func(m *masking.Marks) bool { return holds(m, b) })
	}
	if body.beginsWith(named) {
		return true
	}
	unpacked := unpack(response.Header, body.beginning())
	marks[0] = p.ErrorMarks(true)
	return len(unpacked) > 0 && named(unpacked)
}

func holds(m *masking.Marks, b []byte) bool {
	_, _, found := m.Find(b)
	return found
}

// policyFor is the mask for an answer of this status to a request to host. Errors are
// judged by all marks, whatever the customer has asked for: he chooses the host.
func policyFor(p *masking.Policy, host string, status int) *masking.Policy {
	if status >= 400 {
		return p
	}
	return p.For(host)
}

// readableText reports whether a body may be an error page that can be read as it is.
func readableText(header http.Header) bool {
	if coding := header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return false
	}
	kind := strings.ToLower(header.Get("Content-Type"))
	return kind == "" || strings.HasPrefix(kind, "text/") || strings.Contains(kind, "json") || strings.Contains(kind, "xml")
}

// aheadBody reads the beginning of a body in a goroutine that Close waits for, so
// that it can be looked at without holding up a body that comes slowly.
type aheadBody struct {
	body io.ReadCloser
	done chan struct{} // closed when the goroutine has ended
	more chan struct{} // poked when there is more in read

	mu   sync.Mutex // guards what follows
	read []byte
	err  error // that ended the body
}

func readAhead(body io.ReadCloser) *aheadBody {
	a := &aheadBody{body: body, done: make(chan struct{}), more: make(chan struct{}, 1)}
	go a.run()
	return a
}

func (a *aheadBody) run() {
	defer close(a.done)
	buf := make([]byte, aheadBytes)
	for n := 0; n < len(buf); {
		m, err := a.body.Read(buf[n:])
		n += m
		a.mu.Lock()
		a.read = append(a.read, buf[n-m:n]...)
		a.err = err
		a.mu.Unlock()
		select {
		case a.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// beginsWith reports whether the beginning is one of those that is knows, of which it is
// shown more and more: as soon as it does, and else when all of the beginning is there,
// or what has come of it in time. A page of a gateway's that comes slowly is thus told
// no later than another. It must be called before the first Read.
func (a *aheadBody) beginsWith(is func([]byte) bool) bool {
	late := time.NewTimer(aheadTime)
	defer late.Stop()
	for more := true; more; {
		select {
		case <-a.more:
		case <-a.done:
			more = false
		case <-late.C:
			more = false
		}
		a.mu.Lock()
		read := a.read // only Read takes anything away
		a.mu.Unlock()
		if is(read) {
			return true
		}
	}
	return false
}

// beginning is what has come. It must be called before the first Read, and not be changed.
func (a *aheadBody) beginning() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.read
}

// Read implements io.Reader.
func (a *aheadBody) Read(p []byte) (int, error) {
	for {
		a.mu.Lock()
		n := copy(p, a.read)
		a.read = a.read[n:]
		err := a.err
		a.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
		select {
		case <-a.more:
		case <-a.done:
			if a.empty() {
				return a.body.Read(p)
			}
		}
	}
}

// empty reports whether the goroutine left neither bytes nor an error. Valid once it has ended.
func (a *aheadBody) empty() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.read) == 0 && a.err == nil
}

// Close implements io.Closer.
func (a *aheadBody) Close() error {
	err := a.body.Close()
	<-a.done
	return err
}

var errMarked = errors.New("proxy: an error body names the vendor")

// guardedBody lets a body pass up to the first mark, of which nothing passes. It holds
// back no more than could be the beginning of one.
type guardedBody struct {
	body  io.ReadCloser
	marks *masking.Marks
	ready []byte // searched, to be given out
	held  []byte // may be the beginning of a mark
	err   error  // after ready
}

// Read implements io.Reader.
func (g *guardedBody) Read(p []byte) (int, error) {
	for len(g.ready) == 0 {
		if g.err != nil {
			return 0, g.err
		}
		data := make([]byte, len(g.held)+guardedBytes)
		n, err := g.body.Read(data[copy(data, g.held):])
		data = data[:len(g.held)+n]
		g.err = err
		if _, _, found := g.marks.Find(data); found {
			g.held, g.err = nil, errMarked
			continue
		}
		back := 0
		if err == nil {
			back = g.marks.Pending(data)
		}
		g.ready, g.held = data[:len(data)-back], data[len(data)-back:]
	}
	n := copy(p, g.ready)
	g.ready = g.ready[n:]
	return n, nil
}

// Close implements io.Closer.
func (g *guardedBody) Close() error { return g.body.Close() }
