package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"maskrelay/masking"
	"maskrelay/proxy/tunnel"
)

// lateFlush is how long the head of an answer waits for the first of its body.
const lateFlush = 20 * time.Millisecond

// plainWriter stands between goproxy and net/http: it keeps net/http from adding
// fields of its own, flushes streams as they come, counts, sets deadlines, and
// writes our reply where goproxy has none.
type plainWriter struct {
	http.ResponseWriter
	h       *handler
	x       *exchange
	r       *http.Request
	control *http.ResponseController
	cancel  context.CancelFunc // ends an upgrade's request to the upstream; nil for others
	body    *requestBody       // nil = none; set before the request goes out
	order   []string           // of the request's field lines; nil = not known
	came    answerOrder        // of the answer's; without names it is not known
	left    func() error       // why the exchange is over before its time; nil = it is not
	gone    <-chan struct{}    // closed when it is over
	ready   bool               // the first of the answer's body is there

	answered atomic.Bool                   // by the upstream
	shared   atomic.Pointer[tunnel.Shared] // the customer's bandwidth; nil until he is known to be one

	mu       sync.Mutex // guards the ResponseWriter and what follows, against flushLate
	wrote    bool
	over     bool
	status   int
	length   int64 // announced; -1 = unknown
	written  int64
	late     *time.Timer // flushes what a slow body leaves lying
	extended time.Time   // when the customer was last given time

	ours   bool // a reply of ours was written; what goproxy writes is dropped
	failed error
	cut    error // the upstream's body broke off
	idled  atomic.Bool
}

// policy is the mask for an answer of this status to this request.
func (w *plainWriter) policy(status int) *masking.Policy {
	return policyFor(w.h.server.config.Policy, w.r.URL.Host, status)
}

// Unwrap is for http.ResponseController.
func (w *plainWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *plainWriter) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wrote {
		return
	}
	w.wrote, w.status = true, status
	w.x.begun = true
	if w.x.outcome != "" {
		w.reply()
		return
	}
	header := w.ResponseWriter.Header()
	for _, name := range [2]string{"Date", "Content-Type"} {
		if _, ok := header[name]; !ok {
			header[name] = nil // net/http adds none
		}
	}
	if !w.r.ProtoAtLeast(1, 1) {
		header["Connection"] = []string{"close"} // a proxy keeps none of those (RFC 9112 §9.3)
	}
	if w.body != nil && !w.body.isWhole() {
		// An answer that comes before the body has: what is left of the body must not be
		// taken for the next request, nor be eaten by net/http, which it does before an
		// answer unless the connection ends: a target that reads on would miss it.
		header["Connection"] = []string{"close"}
	}
	w.length = -1
	if n, err := strconv.ParseInt(header.Get("Content-Length"), 10, 64); err == nil {
		w.length = n
	}
	w.extend()
	w.x.conn.unnamed.Store(http.StatusText(status) == "")
	if len(w.came.names) > 0 {
		w.x.conn.ordered.Store(&w.came)
	}
	w.ResponseWriter.WriteHeader(status)
	switch {
	case w.length < 0 && !w.ready:
		_ = w.control.Flush() // the head does not wait for the first byte
	case w.length < 0, w.length > 0 && !w.ready:
		w.late = time.AfterFunc(lateFlush, w.flushLate)
	}
}

// reply writes the outcome's reply in the place of goproxy's answer.
func (w *plainWriter) reply() {
	w.ours = true
	reply := w.h.server.replies.of(w.x.outcome)
	w.status = reply.Status()
	if w.x.outcome == ClientGone {
		return
	}
	w.extend()
	if w.body != nil && !w.body.isWhole() {
		w.body.leave() // the transport may be reading what has not come: nobody waits for that
	}
	w.x.conn.reply(w.ResponseWriter, w.r, reply, endsWith(w.x.outcome, w.status, carries(w.r)))
}

// Write implements http.ResponseWriter.
func (w *plainWriter) Write(b []byte) (int, error) {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	if w.ours {
		return len(b), nil
	}
	n, err := w.write(b)
	pay(w.gone, w.shared.Load(), false, n)
	return n, err
}

func (w *plainWriter) write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.extend()
	n, err := w.ResponseWriter.Write(b)
	w.written += int64(n)
	if err == nil && w.written != w.length {
		err = w.control.Flush() // a stream, or a part of something slow
	}
	w.x.received += int64(n)
	w.book(false, n)
	if err != nil {
		w.failed = err
	}
	return n, err
}

// copyBuffers holds the buffers of bodies on their way.
var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// ReadFrom implements io.ReaderFrom, for goproxy's io.Copy, with a pooled buffer.
func (w *plainWriter) ReadFrom(r io.Reader) (int64, error) {
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{w}, r, buf[:])
}

// flushLate sends the head of an answer whose body takes its time.
func (w *plainWriter) flushLate() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over && w.written == 0 {
		w.extend()
		_ = w.control.Flush()
	}
}

// Flush implements http.Flusher.
func (w *plainWriter) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ours && w.wrote {
		w.extend()
		_ = w.control.Flush()
	}
}

// extend gives the customer the idle time again to take what is written; not so exactly
// that every write would pay for it.
func (w *plainWriter) extend() {
	now, idle := time.Now(), w.h.server.config.IdleTimeout
	if now.Sub(w.extended) > idle/32 {
		w.extended = now
		_ = w.control.SetWriteDeadline(now.Add(idle))
	}
}

// book counts bytes, and the connection with the first of them, or with an answer that
// has none.
func (w *plainWriter) book(sent bool, n int) {
	s := w.h.server
	u := w.x.who.usage(s.config.Meter)
	if c := w.x.conn; c.uncounted.Load() && c.uncounted.CompareAndSwap(true, false) {
		u.Opened()
	}
	s.metrics.moved(u, sent, n)
}

// vouched reports whether the customer is known to be one: in passthrough only the vendor
// can tell, and does by an answer.
func (w *plainWriter) vouched() bool {
	who := w.x.who
	return who.account != nil || w.h.server.config.Auth != AuthPassthrough || w.answered.Load() || who.counted.Load() != nil
}

// finish ends the late flush.
func (w *plainWriter) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if w.late != nil {
		w.late.Stop()
	}
}

// end closes the exchange's books. A body that broke off must not look complete, and
// a customer who left before there was an answer gets none: the connection is cut.
func (w *plainWriter) end() {
	w.finish()
	outcome := w.x.outcome
	broken := w.cut != nil && outcome == ""
	if w.body != nil {
		w.x.sent = w.body.leave()
		w.body.book()
	}
	if outcome == "" {
		w.book(false, 0) // an answer without a body is one, too
	}
	switch {
	case outcome != "":
	case w.failed != nil || broken && w.left() != nil:
		outcome = ClientGone
	case broken && w.idled.Load():
		outcome = IdleTimeout
	case broken:
		outcome = UpstreamReset
		w.x.err = w.cut
	default:
		outcome = OK
	}
	if w.ours && outcome == ClientGone {
		w.status = 0
		broken = true
	}
	w.x.finish(outcome, w.status)
	if broken {
		w.x.conn.aborted = w.cut != nil
		panic(http.ErrAbortHandler)
	}
}

// share takes the customer's bandwidth once it is known who he is: strangers' names are
// neither kept nor told the fleet. The handler's goroutine calls it, and unshare at the end.
func (w *plainWriter) share() {
	if w.shared.Load() == nil && w.vouched() {
		w.shared.Store(w.h.server.bandwidths.take(w.x.who.key))
	}
}

func (w *plainWriter) unshare() {
	if w.shared.Load() != nil {
		w.h.server.bandwidths.drop(w.x.who.key)
	}
}

// upstreamAnswered notes that the upstream has taken the customer.
func (w *plainWriter) upstreamAnswered() {
	w.answered.Store(true)
	w.share()
}

// requestBody is the customer's body on its way: each read has the idle time, and
// its trailers are filtered when they are complete. The transport reads it in a
// goroutine of its own, which may outlast the exchange.
type requestBody struct {
	io.ReadCloser
	w       *plainWriter
	trailer http.Header // announced names; the values come with the body's end
	expects bool        // the customer waits for a 100, which net/http sends at the first read

	mu      sync.Mutex // guards what follows
	sent    int64
	booked  int64 // of them
	whole   bool  // read to its end
	failure error // of a read, other than the end
	left    bool  // the exchange is over; the connection's deadlines are net/http's again
}

var errBodyLeft = errors.New("proxy: the exchange is over")

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	if !b.deadline(time.Now().Add(b.w.h.server.config.IdleTimeout)) {
		return 0, errBodyLeft
	}
	n, err := b.ReadCloser.Read(p)
	pay(b.w.gone, b.w.shared.Load(), true, n)
	if errors.Is(err, io.EOF) {
		b.takeTrailers()
	}
	b.mu.Lock()
	b.sent += int64(n)
	b.whole = b.whole || errors.Is(err, io.EOF)
	if err != nil && !b.whole && !b.left {
		b.failure = err
	}
	b.mu.Unlock()
	b.book() // as it comes: a body may be endless, and its answer need never come
	if err != nil {
		// net/http watches the connection from here on; a deadline would end the request.
		b.deadline(time.Time{})
	}
	return n, err
}

// book counts what was sent and is not counted yet, once it is known who the customer is.
func (b *requestBody) book() {
	if !b.w.vouched() {
		return
	}
	b.mu.Lock()
	n := b.sent - b.booked
	b.booked = b.sent
	b.mu.Unlock()
	if n > 0 {
		b.w.book(true, int(n))
	}
}

// fault is the outcome for a customer whose body is malformed or does not come; empty
// if it is not his fault. A nil body has none.
func (b *requestBody) fault() Outcome {
	if b == nil {
		return ""
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var broken net.Error
	switch {
	case b.failure == nil, errors.Is(b.failure, io.ErrUnexpectedEOF):
		return "" // or he has left
	case errors.As(b.failure, &broken):
		if broken.Timeout() {
			return HeadTimeout
		}
		return ""
	}
	return BadRequest
}

// deadline sets the connection's read deadline, unless the exchange is over.
func (b *requestBody) deadline(t time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.left {
		_ = b.w.control.SetReadDeadline(t)
	}
	return !b.left
}

func (b *requestBody) takeTrailers() {
	came := b.w.r.Trailer.Clone()
	b.w.h.server.config.Policy.Trailer(came)
	for name := range b.trailer {
		b.trailer[name] = came[name]
	}
}

// isWhole reports whether all of the body was read.
func (b *requestBody) isWhole() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.whole
}

// leave ends the body's part in the exchange and returns how many bytes were sent.
// What is left of a body that nobody wants is waited for a moment only.
func (b *requestBody) leave() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = true
	if !b.whole {
		b.w.x.conn.leaving.Store(true)
		_ = b.w.control.SetReadDeadline(time.Now().Add(lingerTimeout))
	}
	return b.sent
}

// responseBody is the target's body on its way: it remembers an error, and filters
// trailers at the end. timed makes it end the request when nothing comes for the idle
// time; the transport's bodies do so by themselves.
type responseBody struct {
	io.ReadCloser
	response *http.Response
	trailers func() http.Header // complete at the body's end
	w        *plainWriter
	timed    bool
	timer    *time.Timer

	nominated masking.Nominated // by the answer's head
}

// Read implements io.Reader.
func (b *responseBody) Read(p []byte) (int, error) {
	if b.timed {
		b.wait(b.w.h.server.config.IdleTimeout)
	}
	n, err := b.ReadCloser.Read(p)
	if b.timed {
		b.timer.Stop()
	}
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		if came := b.trailers(); len(came) > 0 {
			came = came.Clone()
			b.w.policy(b.response.StatusCode).Trailer(came)
			b.nominated.Drop(came)
			b.response.Trailer = came
		}
	default:
		if errors.Is(err, os.ErrDeadlineExceeded) {
			b.w.idled.Store(true)
		}
		b.w.cut = err
	}
	return n, err
}

func (b *responseBody) wait(idle time.Duration) {
	if b.timer == nil {
		b.timer = time.AfterFunc(idle, b.expire)
		return
	}
	b.timer.Reset(idle)
}

func (b *responseBody) expire() {
	b.w.idled.Store(true)
	b.w.cancel()
}

// Close implements io.Closer.
func (b *responseBody) Close() error {
	if b.timer != nil {
		b.timer.Stop()
	}
	return b.ReadCloser.Close()
}

// isUpgrade reports whether the request is a websocket handshake (RFC 6455 §4.1).
// Other protocols to upgrade to (h2c) are hop-by-hop and end here.
func isUpgrade(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoAtLeast(1, 1) && r.ContentLength == 0 &&
		hasToken(r.Header["Connection"], "upgrade") && hasToken(r.Header["Upgrade"], "websocket")
}

func hasToken(values []string, token string) bool {
	for _, v := range values {
		for one := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(one), token) {
				return true
			}
		}
	}
	return false
}
