package proxy

import (
	"errors"
	"slices"

	"maskrelay/masking"
	"maskrelay/proxy/account"
	"maskrelay/upstream"
	"maskrelay/upstream/vendor"
)

// wish finds the route for what a customer asks of the vendor in his username, "" if
// nothing. The pool is the one of his parameter, if he may choose it, else his account's,
// else the listener's.
func (s *Server) wish(q *question, who *identity, params string) (cause string, o Outcome) {
	var wishes vendor.Params
	if params != "" {
		if wishes, q.fault = vendor.ParseParams(params); q.fault != nil {
			return string(q.fault.Kind), BadParams
		}
	}
	pool, ok := PoolFor(q.pool, who.account, wishes.Pool)
	if !ok {
		q.fault = &vendor.Fault{Kind: vendor.Unavailable, Key: vendor.Pool}
		return string(q.fault.Kind), BadParams
	}
	var err error
	q.route, err = s.config.Upstream.Route(upstream.Choice{Pool: pool, Account: who.key, Params: wishes, Client: q.client})
	if err == nil {
		return "", OK
	}
	if q.fault = faultOf(err); q.fault != nil {
		return string(q.fault.Kind), BadParams
	}
	return "pool", NoUpstream // an account's pool that has lost its gateways
}

// faultOf is what a route's error says of the customer's parameters, nil if nothing. It
// keeps the question, which most have no fault, on the stack.
func faultOf(err error) (f *vendor.Fault) {
	errors.As(err, &f)
	return f
}

// PoolFor is the pool that serves an account, which may be nil, through a listener of a
// pool; false if the customer wants one that is not his to choose. "" is no wish, and for
// the listener the default.
func PoolFor(listener string, a *account.Account, wanted string) (pool string, ok bool) {
	pool = listener
	if a != nil && a.Pool != "" {
		pool = a.Pool
	}
	if pool == "" {
		pool = upstream.DefaultPool
	}
	if wanted == "" || wanted == pool {
		return pool, true
	}
	return wanted, a != nil && slices.Contains(a.Pools, wanted)
}

// faultReplies are the replies to parameters that cannot be served: each says which one
// and why, in words that come from a closed set.
type faultReplies map[vendor.Fault]*masking.Reply

func newFaultReplies(b masking.Brand) faultReplies {
	r := make(faultReplies)
	for _, fault := range vendor.Faults() {
		r[fault] = masking.NewReply(b, masking.ReplySpec{
			Status: statusOf[BadParams], Text: fault.Error(), ProxyError: "http_request_error",
		})
	}
	return r
}

// replyTo is the reply to an outcome; fault says more of BadParams, and may be nil.
func (s *Server) replyTo(o Outcome, fault *vendor.Fault) *masking.Reply {
	if o == BadParams && fault != nil {
		if reply := s.faults[*fault]; reply != nil {
			return reply
		}
	}
	return s.replies.of(o)
}
