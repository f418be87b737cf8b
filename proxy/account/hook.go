package account

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// The styles of [HookConfig].
const (
	// StyleJSON is a POST of JSON, answered with an account as JSON.
	StyleJSON = "json"
	// StyleHeaders is a GET with a query, answered with limits in the answer's head.
	StyleHeaders = "headers"
)

const (
	defaultHookTTL         = time.Minute
	defaultHookTimeout     = 2 * time.Second
	defaultHookConcurrency = 64
)

// HookConfig says where a Hook's answers come from, and how long they hold.
type HookConfig struct {
	// URL is asked: http or https. Credentials in it are sent as Basic authorization.
	// It is a secret; no error quotes it.
	URL string
	// Style is [StyleJSON] or [StyleHeaders]; empty is StyleJSON.
	Style string
	// TTL is how long an account holds before it is asked for again; 0 is a minute.
	TTL time.Duration
	// NegativeTTL is how long a refusal holds; 0 = it is not remembered.
	NegativeTTL time.Duration
	// Stale is for how long after its TTL an account is still served while it is asked
	// for again, or while the hook cannot be asked; 0 = not at all.
	Stale time.Duration
	// Timeout bounds one call from the dial to the last byte; 0 is 2 s.
	Timeout time.Duration
	// Concurrency is how many calls are under way at once; 0 is 64. Half of them, at
	// least one, are for accounts that are asked for again, so 1 stands for 2.
	Concurrency int
	// Token is sent as Bearer authorization; empty = none. It is a secret.
	Token string
	// TLS is how the hook is trusted, and the relay's own certificate if it must show
	// one; nil = the host's authorities and none. It is not changed.
	TLS *tls.Config
	// InUse reports whether an account has open connections: those are asked for again
	// as often as TTL says. It is called for one account after another, must be quick,
	// and must not call the Hook. nil = none has.
	InUse func(name string) bool
	// Check is asked about each account that the hook tells, before it is taken; nil =
	// none is. What it says is the hook's trouble. It is as [StoreConfig]'s.
	Check func(*Account) error
	// Trouble is told why the hook cannot be used or understood, at most once a minute
	// and with how often. It must not wait. nil = nobody is told.
	Trouble func(error)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// String returns a fixed text, so that secrets do not end in a log.
func (HookConfig) String() string { return "[redacted]" }

// GoString returns a fixed text, so that secrets do not end in a log.
func (HookConfig) GoString() string { return "[redacted]" }

// Hook serves the accounts that a service on the network knows, one at a time. It has
// the methods of a [Store] and stands in its place: see the package's documentation for
// what the service is asked and may answer. Safe for concurrent use.
//
// What the service said is remembered under a digest of name and password. Passwords
// themselves are kept, in memory only, for accounts that are in use or were in the last
// half a minute, because it takes them to ask again.
//
// An account belongs to a name: if several passwords of one name are good, the latest
// answer to any of them is the account.
type Hook struct {
	config  HookConfig
	caller  *caller
	flights *flights[hookAnswer]
	digester
	answers  *answers
	refused  refusals
	troubles troubles
	status   atomic.Pointer[status]
	// reloads counts calls of Reload: an answer to a question of before is out of date.
	reloads  atomic.Int64
	watching atomic.Bool // somebody asks again
}

// hookAnswer is what a question brought: an account, ErrRefused, or what went wrong.
type hookAnswer struct {
	account *Account
	err     error
}

// NewHook returns a Hook. It asks nothing yet, so that a relay starts without it.
func NewHook(config HookConfig) (*Hook, error) {
	for _, d := range []time.Duration{config.TTL, config.NegativeTTL, config.Stale, config.Timeout} {
		if d < 0 {
			return nil, errors.New("account: hook: a duration is negative")
		}
	}
	if config.Concurrency < 0 {
		return nil, errors.New("account: hook: the concurrency is negative")
	}
	config.TTL = cmp.Or(config.TTL, defaultHookTTL)
	config.Timeout = cmp.Or(config.Timeout, defaultHookTimeout)
	config.Concurrency = max(2, cmp.Or(config.Concurrency, defaultHookConcurrency))
	if config.InUse == nil {
		config.InUse = func(string) bool { return false }
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	caller, err := newCaller(config)
	if err != nil {
		return nil, err
	}
	config.URL, config.Token = "", "" // the caller has them
	h := &Hook{
		config:  config,
		caller:  caller,
		flights: newFlights[hookAnswer](config.Concurrency - config.Concurrency/2),
		answers: newAnswers(config),
	}
	_, _ = rand.Read(h.key[:]) // never fails: crypto/rand.Read ends the program instead
	h.hashers.New = h.newHasher
	h.troubles.tell = config.Trouble
	h.status.Store(&status{})
	return h, nil
}

// Close closes the connections to the hook that nobody uses. Watch does so when it
// ends; a Hook may be used after it.
func (h *Hook) Close() { h.caller.transport.CloseIdleConnections() }

// Known is Authenticate for callers that must not wait. known is false if the hook has
// to be asked. The error is ErrRefused.
func (h *Hook) Known(name, password string) (a *Account, known bool, err error) {
	_, a, verdict := h.look(name, password)
	switch verdict {
	case right:
		return a, true, nil
	case wrong:
		return nil, true, ErrRefused
	}
	return nil, false, nil
}

// look returns what is known of name and password.
func (h *Hook) look(name, password string) (digest, *Account, verdict) {
	if nameProblem(name) != "" || !utf8.ValidString(password) {
		return digest{}, nil, wrong // no account can be called so, and JSON cannot say it
	}
	d := h.digest(name, password)
	if a := h.answers.find(d, name, password, h.watching.Load()); a != nil {
		return d, a, right
	}
	if h.refused.has(d, h.config.Now()) {
		return d, nil, wrong
	}
	return d, nil, unverified
}

// Authenticate returns the account of name if the hook lets password in. name is
// without parameters; see [SplitUsername]. The account may be disabled or expired, or
// barred from the customer's address: that is for the caller to look at.
//
// The hook is asked once for credentials that many bring at the same time; see
// [WithClient] and [WithListener] for what else it is told. The error is [ErrRefused],
// or wraps [ErrBusy] if the hook was not to be had: because of too many questions
// before this one, because ctx ended, or because it gave no answer or one that makes no
// sense. Then an account that it told before is served for as long as it may. Together,
// waiting for a turn and the call take twice the timeout at the most.
func (h *Hook) Authenticate(ctx context.Context, name, password string) (*Account, error) {
	d, a, verdict := h.look(name, password)
	switch verdict {
	case right:
		return a, nil
	case wrong:
		return nil, ErrRefused
	}
	q := asking{d: d, name: name, password: newHeld(password), from: originOf(ctx)}
	ctx, cancel := context.WithTimeout(ctx, 2*h.config.Timeout)
	defer cancel()
	answer, err := h.flights.do(ctx, flightKey{d: d}, func() (hookAnswer, bool) { return h.ask(ctx, q) })
	if err == nil {
		err = answer.err
	}
	switch {
	case err == nil:
		return answer.account, nil
	case errors.Is(err, ErrRefused):
		return nil, ErrRefused
	}
	if a := h.answers.find(d, name, password, true); a != nil {
		return a, nil
	}
	return nil, err
}

// ask makes a call for a customer who waits for it, and reports whether there was an
// answer before ctx ended.
func (h *Hook) ask(ctx context.Context, q asking) (hookAnswer, bool) {
	// A flight may have landed between the caller's look and its own take-off.
	switch _, a, verdict := h.look(q.name, *q.password.text); verdict {
	case right:
		return hookAnswer{account: a}, true
	case wrong:
		return hookAnswer{err: ErrRefused}, true
	}
	a, err := h.call(ctx, q)
	if err != nil && !errors.Is(err, ErrRefused) {
		if ctx.Err() != nil {
			return hookAnswer{}, false
		}
		err = fmt.Errorf("%w: hook: %w", ErrBusy, err)
	}
	return hookAnswer{a, err}, true
}

// call asks and takes the answer up. The error is that of caller.ask; it is nobody's
// trouble if ctx ended.
func (h *Hook) call(ctx context.Context, q asking) (*Account, error) {
	reloads := h.reloads.Load()
	a, err := h.caller.ask(ctx, q)
	if err == nil {
		if bad := inspect(h.config.Check, a); bad != nil {
			err = fmt.Errorf("the answer is not an account: %w", bad)
		}
	}
	now := h.config.Now()
	current := reloads == h.reloads.Load()
	switch {
	case err == nil:
		a = h.answers.accept(q, a, current)
	case errors.Is(err, ErrRefused):
		h.answers.remove(q.d, q.name)
		if current && h.config.NegativeTTL > 0 {
			h.refused.add(q.d, now.Add(h.config.NegativeTTL))
		}
	case ctx.Err() != nil:
		return nil, err
	default:
		h.troubles.add(err, now)
		h.status.Store(&status{h.status.Load().loaded, fmt.Errorf("account: hook: %w", err)})
		return nil, err
	}
	h.status.Store(&status{loaded: now})
	return a, err
}

// Lookup returns the account of that name as it was last told, and reports whether
// there is one. The hook is not asked.
func (h *Hook) Lookup(name string) (*Account, bool) {
	a := h.answers.lookup(name)
	return a, a != nil
}

// Len returns the number of accounts that are remembered.
func (h *Hook) Len() int { return int(h.answers.people.Load()) }

// Range calls f for every account that is remembered, in the order of their names,
// until f returns false.
func (h *Hook) Range(f func(*Account) bool) {
	accounts := h.answers.all()
	slices.SortFunc(accounts, func(a, b *Account) int { return cmp.Compare(a.Name, b.Name) })
	for _, a := range accounts {
		if !f(a) {
			return
		}
	}
}

// Expired returns the names of accounts that expired since the last call, each once;
// an account that has expired by the time it is told is a [Change]'s to name. The
// caller owns ending their connections. It is cheap enough to be called once a second.
func (h *Hook) Expired() []string { return h.answers.expired() }

// Reload forgets refusals and asks for every account again: for those in use at once,
// for others when they are used. It waits for no answer, so its Change is empty; what
// the answers change, [Hook.Watch] tells. The error is always nil.
func (h *Hook) Reload() (Change, error) {
	h.reloads.Add(1)
	h.refused.forget()
	h.answers.outdate()
	return Change{}, nil
}

// Status returns when the hook last answered, zero if it never did, and why the last
// call failed, nil if it did not.
func (h *Hook) Status() (loaded time.Time, lastError error) {
	st := h.status.Load()
	return st.loaded, st.err
}
