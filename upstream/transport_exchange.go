package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// plainExchange is one request on one connection, from the head that is sent to the
// end of the answer's body.
type plainExchange struct {
	conn     *plainConn
	t        *Transport
	r        *PlainRequest
	patience time.Duration // for a write, and for the answer's head
	idle     time.Duration
	in       inbound
	stop     func() bool // the watch over the request's context

	response http.Response
	answer   PlainResponse
	body     answerBody
	upload   *upload // nil = no body
	hints    []hint  // 1xx answers that wait for the final one

	mu       sync.Mutex // guards what follows
	headCame bool
	over     bool // nothing of the answer is to come
	reusable bool // valid once over
}

func newExchange(t *Transport, conn *plainConn, r *PlainRequest) *plainExchange {
	x := &plainExchange{t: t, conn: conn, r: r, patience: r.patience(t.pool.options.ConnectTimeout), idle: r.Idle}
	x.in.conn = conn
	return x
}

// run sends the request and returns the answer once its head has come. On an error
// the connection is closed.
func (x *plainExchange) run(ctx context.Context, head []byte) (*PlainResponse, error) {
	x.stop = context.AfterFunc(ctx, x.interrupt)
	err := x.sendHead(head)
	if err == nil {
		err = x.readHead()
	}
	if err != nil {
		x.end(false)
		return nil, err
	}
	return &x.answer, nil
}

// interrupt makes every read and write on the connection fail, if the exchange still
// has it.
func (x *plainExchange) interrupt() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.over {
		_ = x.conn.Close()
	}
}

// readHead reads heads until one is final.
func (x *plainExchange) readHead() error {
	for hints := 0; ; {
		b, err := x.in.until(endOfAnswer, plainMaxHeadBytes)
		if err != nil {
			return err
		}
		if hints += len(b); hints > plainMaxHintBytes {
			return errAnswerTooLong
		}
		head, err := parseAnswer(b)
		switch {
		case err != nil:
			return err
		case head.status >= 200 || head.status == http.StatusSwitchingProtocols:
			return x.begin(&head)
		case head.status == http.StatusContinue:
			x.upload.proceed()
		case x.r.Informational == nil:
		case x.conn.key.gateway.Scheme == SchemeDirect:
			x.r.Informational(head.status, head.header) // nobody else can have said it
		case hints <= plainMaxHeldHints:
			x.hints = append(x.hints, hint{head.status, head.header})
		}
	}
}

// passHints passes on what has waited for the final answer. A 101 is none for anybody.
func (x *plainExchange) passHints() {
	if x.response.StatusCode == http.StatusSwitchingProtocols {
		return
	}
	for _, hint := range x.hints {
		x.conn.echoes.dropEchoes(hint.header)
		x.r.Informational(hint.status, hint.header)
	}
	x.hints = nil
}

// hint is a 1xx answer.
type hint struct {
	status int
	header http.Header
}

// begin makes the response of a final head.
func (x *plainExchange) begin(head *answerHead) error {
	request := x.r.Request
	f, trailers, err := head.frame(request.Method)
	if err != nil {
		return err
	}
	x.mu.Lock()
	x.headCame = true
	x.mu.Unlock()
	x.upload.refuse()
	if head.status == http.StatusSwitchingProtocols || x.conn.key.gateway.Scheme == SchemeDirect {
		f.close = true
	}
	x.response = http.Response{
		Status: statusText(head), StatusCode: head.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: head.minor,
		Header: head.header, Trailer: trailers, ContentLength: f.length, Request: request, Close: f.close, Body: http.NoBody,
	}
	if head.minor == 0 {
		x.response.Proto = "HTTP/1.0"
	}
	x.body = answerBody{x: x, framing: f, left: f.length, trailer: trailers.Clone()}
	x.answer = PlainResponse{Response: &x.response, Order: head.order, body: &x.body}
	if f.length == 0 && !f.chunked {
		x.end(true)
		return nil
	}
	if f.chunked {
		x.body.left = 0
	}
	if x.idle == 0 {
		_ = x.conn.SetReadDeadline(time.Time{})
	}
	x.response.Body = &x.body
	return nil
}

// statusText is the code and the reason phrase, as http.Response has them.
func statusText(head *answerHead) string {
	if head.status == http.StatusOK && head.reason == "OK" {
		return "200 OK"
	}
	return strconv.Itoa(head.status) + " " + head.reason
}

// end gives up the connection: after a whole answer it waits for the next request, if
// there is no more to come either way. A body that is still being sent ends first.
func (x *plainExchange) end(whole bool) {
	clean := x.stop() && whole && !x.body.framing.close && x.in.start == x.in.end
	x.in.free()
	x.mu.Lock()
	x.over, x.reusable = true, clean
	sending := clean && x.upload != nil && !x.upload.ended
	x.mu.Unlock()
	x.upload.refuse()
	if !sending {
		x.part()
	}
}

// part puts the connection away, once nobody uses it.
func (x *plainExchange) part() {
	if x.reusable && x.upload.complete() {
		x.t.idle.put(x.conn)
		return
	}
	_ = x.conn.Close()
}

// stale reports whether err means that an idle connection had been closed before it
// was used again.
func (x *plainExchange) stale(err error) bool {
	var timeout net.Error
	return !x.in.came && (!errors.As(err, &timeout) || !timeout.Timeout())
}
