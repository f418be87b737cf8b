package proxy

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"maskrelay/proxy/account"
	"maskrelay/proxy/limit"
)

// authTimeout bounds the wait for a password to be checked.
const authTimeout = 5 * time.Second

// identity is who a customer is and what caps he has.
type identity struct {
	name          string // for the log and metrics; empty in open mode
	key           string // of caps, tunnels and pooled connections
	authorization string // passthrough: the customer's own, for the gateway
	caps          limit.Caps
}

// admit is the gate after the request's shape was found good. OK lets the exchange
// pass; then the connection holds a lease.
func (s *Server) admit(x *exchange, r *http.Request, target Target) Outcome {
	client := x.conn.clientAddr()
	if len(s.config.AllowFrom) > 0 && !within(s.config.AllowFrom, client) {
		return ClientDenied
	}
	who, outcome := s.identify(x, r)
	x.who = who
	if outcome != OK {
		return outcome
	}
	if !s.config.Targets.Allow(target) {
		return TargetDenied
	}
	return s.acquire(settled(r), x)
}

// settled is the request's context without its end. net/http ends it when the
// customer half-closes, which one who has sent all of his bytes may do; whether he
// has left is for those to find out who serve him.
func settled(r *http.Request) context.Context { return context.WithoutCancel(r.Context()) }

// identify finds out whose request it is.
func (s *Server) identify(x *exchange, r *http.Request) (identity, Outcome) {
	if s.config.Auth == AuthOpen {
		return identity{key: x.conn.clientAddr().String(), caps: s.config.Defaults}, OK
	}
	header := r.Header["Proxy-Authorization"]
	if len(header) == 0 {
		return identity{}, AuthRequired
	}
	if len(header) > 1 {
		return identity{}, BadRequest
	}
	credentials, err := account.ParseBasic(header[0])
	if err != nil {
		return identity{}, AuthFailed
	}
	if s.config.Auth == AuthPassthrough {
		name := printable(credentials.Username)
		return identity{name: name, key: name, authorization: header[0], caps: s.config.Defaults}, OK
	}
	return s.identifyAccount(x, r, credentials)
}

// printable makes a username that nobody has checked fit for logs and metric labels,
// which must be UTF-8. Different names stay different.
func printable(username string) string {
	if utf8.ValidString(username) && !strings.HasPrefix(username, `"`) {
		return username
	}
	return strconv.Quote(username)
}

func (s *Server) identifyAccount(x *exchange, r *http.Request, c account.Credentials) (identity, Outcome) {
	username := account.SplitUsername(c.Username)
	ctx, cancel := context.WithTimeout(account.WithClient(settled(r), x.client), authTimeout)
	defer cancel()
	a, err := s.config.Accounts.Authenticate(ctx, username.Name, c.Password)
	switch {
	case errors.Is(err, account.ErrBusy):
		return identity{}, AuthBusy
	case err != nil:
		return identity{}, AuthFailed
	}
	who := identity{name: a.Name, key: a.Name, caps: s.withDefaults(a)}
	switch {
	case !a.AllowsFrom(x.conn.clientAddr()):
		return who, ClientDenied
	case a.Disabled:
		return who, AccountDisabled
	case a.Expired(time.Now()):
		return who, AccountExpired
	case username.Params != "":
		// Parameters choose a vendor's exit; to drop them silently would send the
		// customer somewhere else.
		x.cause = "username parameters are not in this version"
		return who, BadRequest
	}
	return who, OK
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

// barred reports whether the account of a key may have no connections (any more).
func (s *Server) barred(key string) bool {
	if s.config.Auth != AuthAccounts {
		return false
	}
	a, ok := s.config.Accounts.Lookup(key)
	return !ok || a.Disabled || a.Expired(time.Now())
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
		var exceeded *limit.ExceededError
		if errors.As(err, &exceeded) && exceeded.Cap == "conn_rate" {
			return CapRate
		}
		x.err = err
		return CapConns
	}
	slot, ok := s.room()
	if !ok && c.holding() {
		// The slot is the connection's own already.
		slot, ok = c.takeSlot(), true
	}
	if !ok {
		lease.Release()
		return RelayFull
	}
	c.hold(lease, slot)
	s.setHolder(c, x.who.key, true)
	if s.barred(x.who.key) { // a reload since identify did not find the connection under this key
		return AccountDisabled
	}
	return OK
}

// room takes a slot of the relay, if there is one and memory for what comes with it.
func (s *Server) room() (*limit.Lease, bool) {
	if s.config.Full != nil && s.config.Full() {
		return nil, false
	}
	return s.slots.TryAcquire()
}

// heldBy reports whether the connection's lease is of key.
func (c *frontConn) heldBy(key string) bool {
	c.server.connsMu.Lock()
	defer c.server.connsMu.Unlock()
	return c.key == key
}

// takeSlot takes the slot out of the connection's hold.
func (c *frontConn) takeSlot() *limit.Lease {
	c.mu.Lock()
	defer c.mu.Unlock()
	slot := c.slot
	c.slot = nil
	return slot
}
