package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
)

// callResult is how a round trip ended.
type callResult int

const (
	callOK       callResult = iota // an answer that the program wants
	callError                      // Redis answered with an error
	callTimeout                    // no answer in time
	callFailed                     // the connection failed
	callBusy                       // no free connection in time
	callCanceled                   // the caller gave up, or his time was over before the call
	callResults
)

func (r callResult) String() string {
	return [...]string{"ok", "error", "timeout", "failed", "busy", "canceled"}[r]
}

// Printf does nothing.
func (quiet) Printf(context.Context, string, ...any) {}

// watcher bounds, counts and judges every call of one Client's redis.
type watcher struct{ c *Client }

// seen marks a context whose call is bounded and counted already: the handshake of a new
// connection runs within a call.
type seen struct{}

// DialHook leaves dialling alone.
func (w watcher) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook watches a command.
func (w watcher) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return w.watch(ctx, func(ctx context.Context) error { return next(ctx, cmd) })
	}
}

// ProcessPipelineHook watches a pipeline as one call.
func (w watcher) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return w.watch(ctx, func(ctx context.Context) error { return next(ctx, cmds) })
	}
}

func (w watcher) watch(ctx context.Context, call func(context.Context) error) error {
	if ctx.Value(seen{}) != nil {
		return call(ctx)
	}
	ctx = context.WithValue(ctx, seen{}, true)
	start := time.Now()
	limit := LongestCall
	deadline, has := ctx.Deadline()
	if !has {
		limit = CallTimeout
	}
	if !has || time.Until(deadline) > limit {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	err := call(ctx)
	result := judge(err)
	if result == callTimeout && time.Since(start) < CallTimeout/2 {
		result = callCanceled // the caller came late: that says nothing of Redis
	}
	w.c.calls[result].Add(1)
	if result == callTimeout || result == callFailed {
		w.c.fell(err)
	}
	return err
}

// judge sorts a call's error.
func judge(err error) callResult {
	var answer redis.Error
	var network net.Error
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var certificate *tls.CertificateVerificationError
	switch {
	case err == nil, errors.Is(err, redis.Nil), redis.HasErrorPrefix(err, "NOSCRIPT"):
		return callOK
	case errors.Is(err, context.Canceled):
		return callCanceled
	case errors.As(err, &answer):
		return callError
	case errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted):
		return callBusy
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return callTimeout
	case errors.As(err, &network):
		if network.Timeout() {
			return callTimeout
		}
		return callFailed
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.As(err, &record), errors.As(err, &alert), errors.As(err, &certificate):
		return callFailed
	default:
		return callError
	}
}

// Calls is how many round trips were made by Redis so far; a pipeline is one.
func (c *Client) Calls() int64 {
	var n int64
	for i := range c.calls {
		n += c.calls[i].Load()
	}
	return n
}
