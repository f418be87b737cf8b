package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"maskrelay/proxy/account"
	"maskrelay/proxy/limit"
	"maskrelay/upstream"
	"maskrelay/upstream/vendor"
)

// authTimeout bounds the wait for a password to be checked.
const authTimeout = 5 * time.Second

// undecided is the outcome of a question that cannot be answered without waiting.
const undecided Outcome = ""

// question is what the gate needs to know of a request.
type question struct {
	client  netip.Addr
	target  Target
	from    string // the listener
	headers int    // Proxy-Authorization fields
	header  []byte // the first one's value; not kept
	pool    string // of gateways, the listener's; "" = the default
	hurried bool   // nothing may wait: the answer may be undecided

	// What the gate found, beside the outcome.

	route *upstream.Route // of an OK
	fault *vendor.Fault   // of a BadParams
}

// judge is the gate after the request's shape was found good, up to the caps. The
// identity is never nil; cause is for the log.
func (s *Server) judge(ctx context.Context, q *question) (who *identity, cause string, o Outcome) {
	if len(s.config.AllowFrom) > 0 && !within(s.config.AllowFrom, q.client) {
		return nobody, "", ClientDenied
	}
	who, cause, o = s.identify(ctx, q)
	switch {
	case o != OK:
	case s.quotaUsed(who):
		o = QuotaUsed
	case !s.config.Targets.Allow(q.target):
		o = TargetDenied
	default:
		o = s.fromHere(ctx, q, who)
	}
	return who, cause, o
}

// quotaUsed reports whether the customer may move nothing more. A passthrough's login
// that no vendor has accepted yet has no counter to ask, and needs none.
func (s *Server) quotaUsed(who *identity) bool {
	if who.account == nil && who.counted.Load() == nil && s.config.Meter.Find(who.key) == nil {
		return false
	}
	return who.usage(s.config.Meter).Exhausted()
}

// fromHere reports whether the customer may come from this address beside his others.
func (s *Server) fromHere(ctx context.Context, q *question, who *identity) Outcome {
	most := s.config.MaxIPs
	if who.account != nil && who.account.MaxIPs > 0 {
		most = who.account.MaxIPs
	}
	if most <= 0 || s.config.Addresses == nil || s.config.Auth == AuthOpen {
		return OK
	}
	var err error
	if q.hurried {
		err = s.config.Addresses.AdmitNow(who.key, q.client, most)
	} else {
		ctx, cancel := context.WithTimeout(ctx, authTimeout)
		defer cancel()
		err = s.config.Addresses.Admit(ctx, who.key, q.client, most)
	}
	if err != nil {
		return limitOutcome(err)
	}
	return OK
}

// admit is the gate of a request that net/http serves. OK lets the exchange pass; then
// the connection holds a lease. It ends with the server, not with the request's context:
// net/http ends that when the customer half-closes, which one who has sent all of his
// bytes may do; whether he has left is for those to find out who serve him.
func (s *Server) admit(x *exchange, r *http.Request, target Target) Outcome {
	l := x.conn.listener
	q := question{client: x.conn.clientAddr(), target: target, from: l.name, pool: l.pool}
	if header := r.Header["Proxy-Authorization"]; len(header) > 0 {
		q.headers, q.header = len(header), []byte(header[0])
	}
	var o Outcome
	if x.who, x.cause, o = s.judge(s.base, &q); o != OK {
		x.fault = q.fault
		return o
	}
	if o = s.acquire(s.base, x); o != OK {
		return o
	}
	if o = s.confirm(x, &q); o != OK {
		x.fault = q.fault
	}
	x.route = q.route
	return o
}

// confirm judges an exchange anew, now that what ends its account finds its connection:
// between the first judgement and this moment it did not. Who waits for a slot, or for a
// limiter far away, may come with a password of before.
func (s *Server) confirm(x *exchange, q *question) Outcome {
	o := OK
	switch {
	case s.changed(x.who):
		x.who, x.cause, o = s.judge(s.base, q)
	case s.quotaUsed(x.who):
		o = QuotaUsed
	}
	if o != OK {
		x.conn.letGo()
	}
	return o
}

// identify finds out whose request it is.
func (s *Server) identify(ctx context.Context, q *question) (*identity, string, Outcome) {
	if s.config.Auth == AuthOpen {
		key := q.client.String()
		who := s.identities.of(key, nil)
		if who == nil {
			who = s.identities.keep(key, &identity{key: key, caps: s.config.Defaults})
		}
		cause, o := s.wish(q, who, "")
		return who, cause, o
	}
	switch q.headers {
	case 0:
		return nobody, "", AuthRequired
	case 1:
	default:
		return nobody, "", BadRequest
	}
	credentials, err := account.ParseBasic(q.header)
	if err != nil {
		return nobody, "", AuthFailed
	}
	if s.config.knowsAccounts() {
		return s.identifyAccount(ctx, q, credentials)
	}
	who := s.identities.ofHeader(q.header)
	if who == nil {
		header, name := string(q.header), printable(credentials.Username)
		who = s.identities.keep(header, &identity{name: name, key: name, authorization: header, caps: s.config.Defaults})
	}
	cause, o := s.wish(q, who, "")
	return who, cause, o
}

// printable makes a username that nobody has checked fit for logs, terminals and metric
// labels, which must be UTF-8. Different names stay different.
func printable(username string) string {
	odd := func(c rune) bool { return c == utf8.RuneError || !unicode.IsPrint(c) }
	if !strings.ContainsFunc(username, odd) && !strings.HasPrefix(username, `"`) {
		return username
	}
	return strconv.Quote(username)
}

func (s *Server) identifyAccount(ctx context.Context, q *question, c account.Credentials) (*identity, string, Outcome) {
	username := account.SplitUsername(c.Username)
	if t := s.config.Logins; t != nil && t.Check(q.client, username.Name) > 0 {
		return nobody, "", LoginThrottled
	}
	a, o := s.authenticate(ctx, q, username.Name, c.Password)
	if t := s.config.Logins; t != nil {
		switch o {
		case OK:
			t.Succeeded(q.client, username.Name)
		case AuthFailed:
			t.Failed(q.client, username.Name)
		}
	}
	if o != OK {
		return nobody, "", o
	}
	who := s.identities.of(a.Name, a)
	if who == nil {
		who = s.identities.keep(a.Name, &identity{name: a.Name, key: a.Name, caps: s.withDefaults(a), account: a})
	}
	switch {
	case !a.AllowsFrom(q.client):
		return who, "", ClientDenied
	case a.Disabled:
		return who, "", AccountDisabled
	case a.Expired(time.Now()):
		return who, "", AccountExpired
	}
	cause, o := s.wish(q, who, username.Params)
	return who, cause, o
}

// authenticate checks a password; where nothing may wait, by what is known already.
func (s *Server) authenticate(ctx context.Context, q *question, name, password string) (*account.Account, Outcome) {
	if q.hurried {
		a, known, err := s.config.Accounts.Known(name, password)
		switch {
		case !known:
			return nil, undecided
		case err != nil:
			return nil, AuthFailed
		}
		return a, OK
	}
	ctx, cancel := context.WithTimeout(account.WithListener(account.WithClient(ctx, q.client), q.from), authTimeout)
	defer cancel()
	a, err := s.config.Accounts.Authenticate(ctx, name, password)
	switch {
	case errors.Is(err, account.ErrBusy):
		return nil, AuthBusy
	case err != nil:
		return nil, AuthFailed
	}
	return a, OK
}

// withDefaults fills what the account does not say.
func (s *Server) withDefaults(a *account.Account) limit.Caps {
	caps := s.config.Defaults
	if a.MaxConns > 0 {
		caps.MaxConns = a.MaxConns
	}
	if a.ConnRate > 0 {
		caps.ConnRate, caps.ConnBurst = a.ConnRate, a.ConnBurst
	} else if a.ConnBurst > 0 {
		caps.ConnBurst = a.ConnBurst
	}
	return caps
}

// changed reports whether the customer's account is not the one that he was identified
// by any more.
func (s *Server) changed(who *identity) bool {
	if who.account == nil {
		return false
	}
	a, _ := s.config.Accounts.Lookup(who.key)
	return a != who.account
}

// barred reports whether the account of a key may have no connections from there (any more).
func (s *Server) barred(key string, client netip.Addr) bool {
	if !s.config.knowsAccounts() {
		return false
	}
	a, ok := s.config.Accounts.Lookup(key)
	return !ok || a.Disabled || a.Expired(time.Now()) || !a.AllowsFrom(client)
}

// capsOf are the caps of a limiter's key, for metrics.
func (s *Server) capsOf(key string) limit.Caps {
	if s.config.Accounts != nil {
		if a, ok := s.config.Accounts.Lookup(key); ok {
			return s.withDefaults(a)
		}
	}
	return s.config.Defaults
}

// bandwidthOf is how many bytes per second the connections of a limiter's key may
// move together, each way; 0 = no limit. It follows a reload at once: it looks the
// account up every time, without a lock, so ask again for connections that live long.
func (s *Server) bandwidthOf(key string) int64 {
	if s.config.Accounts != nil {
		if a, ok := s.config.Accounts.Lookup(key); ok && a.Bandwidth > 0 {
			return a.Bandwidth
		}
	}
	return s.config.Bandwidth
}

// acquire makes the connection hold a lease of its account and a slot of the
// relay. A connection has one of each however many requests it carries; when
// another account speaks on it, that one's replace them.
func (s *Server) acquire(ctx context.Context, x *exchange) Outcome {
	c := x.conn
	if c.holding() && c.heldBy(x.who.key) {
		return OK
	}
	lease, err := s.config.Limiter.Acquire(ctx, x.who.key, x.who.caps)
	if err != nil {
		x.err = err
		return limitOutcome(err)
	}
	// A slot that the connection has is its own already.
	if !c.takeSlot() && !s.waitForRoom(ctx, x) {
		lease.Release()
		return RelayFull
	}
	c.hold(lease)
	s.setHolder(c, x.who.key, true)
	c.uncounted.Store(true)
	return OK
}

// limitOutcome sorts a limiter's refusal.
func limitOutcome(err error) Outcome {
	var exceeded *limit.ExceededError
	switch {
	case errors.Is(err, limit.ErrWouldBlock):
		return undecided
	case !errors.As(err, &exceeded):
		return LimitsDown
	case exceeded.Cap == limit.CapConnRate:
		return CapRate
	case exceeded.Cap == limit.CapMaxIPs:
		return CapAddresses
	}
	return CapConns
}

// room takes a slot of the relay for a customer, if there is one for him and memory for
// what comes with it.
func (s *Server) room(who *identity) bool {
	return !s.memoryFull() && s.fair.TryAcquire(who.key, who.weight())
}

// waitForRoom is room for an exchange that may wait as long as customers may be queued,
// and waits no longer than its customer does. Meanwhile its connection is one of the
// customer's: what ends his others ends it, and it does not make room for strangers.
func (s *Server) waitForRoom(ctx context.Context, x *exchange) bool {
	if s.room(x.who) {
		return true
	}
	if !s.fair.Waits() || s.memoryFull() {
		return false
	}
	s.setHolder(x.conn, x.who.key, true)
	ctx, stop := x.conn.watched(ctx)
	defer stop()
	if s.fair.Acquire(ctx, x.who.key, x.who.weight()) {
		return true
	}
	s.setHolder(x.conn, "", false)
	return false
}

func (s *Server) memoryFull() bool { return s.config.Full != nil && s.config.Full() }

// heldBy reports whether the connection's lease is of key.
func (c *frontConn) heldBy(key string) bool {
	c.server.connsMu.Lock()
	defer c.server.connsMu.Unlock()
	return c.key == key
}

// takeSlot takes the slot out of the connection's hold, if it has one.
func (c *frontConn) takeSlot() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	slot := c.slot
	c.slot = false
	return slot
}
