package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/agnivade/levenshtein"

	"maskrelay/proxy"
	"maskrelay/proxy/account"
	"maskrelay/upstream"
	"maskrelay/upstream/vendor"
)

// passwordTimeout bounds the comparison of a password with its hash.
const passwordTimeout = 30 * time.Second

// exampleSession stands for the sessions of all lines where their form is checked. It is as long as they are.
const exampleSession = "abcd1234"

// proxyList is one customer's list in the making.
type proxyList struct {
	question proxiesQuestion
	account  *account.Account // nil if only the relay can know it
	door     door
	password string
	warnings []string
}

func (l *proxyList) warn(format string, args ...any) {
	l.warnings = append(l.warnings, fmt.Sprintf(format, args...))
}

// username is that of a line with a session.
func (l *proxyList) username(session string) string {
	if params := l.question.params(session); params != "" {
		return l.question.user + "-" + params
	}
	return l.question.user
}

// findAccount finds the customer, as far as the file and the list know him.
func (l *proxyList) findAccount(cfg *Config) error {
	user := l.question.user
	switch cfg.Auth.Mode {
	case AuthOpen:
		return fmt.Errorf("--user: with %sAUTH=open there are no accounts; customers need the host and the port alone", envPrefix)
	case AuthPassthrough:
		if l.question.params(exampleSession) != "" {
			return fmt.Errorf("--user: with %sAUTH=passthrough the username is the vendor's own; write its parameters into it", envPrefix)
		}
		return nil
	}
	if err := account.CheckName(user); err != nil {
		return fmt.Errorf("--user: %s; write the account's name, and what it asks for as flags (--country us)", strings.TrimPrefix(err.Error(), "account: "))
	}
	if cfg.Accounts != nil {
		l.account, _ = cfg.Accounts.Lookup(user)
	}
	elsewhere := "the hook"
	switch {
	case l.account != nil:
		l.warnAccount(time.Now())
		return nil
	case cfg.Auth.InRedis:
		elsewhere = "Redis"
	case cfg.Auth.Mode == AuthAccounts:
		err := fmt.Errorf("--user: there is no account %q", user)
		if near := nearest(user, namesOf(cfg)); near != "" {
			err = fmt.Errorf("%w; did you mean %q?", err, near)
		}
		return err
	}
	l.warn("whether %s knows the account %s, its password and its pools was not looked at", elsewhere, user)
	return nil
}

// warnAccount says why the lines would not work.
func (l *proxyList) warnAccount(now time.Time) {
	a := l.account
	if a.Disabled {
		l.warn("the account %s is disabled: the relay refuses these lines", a.Name)
	}
	if a.Expired(now) {
		l.warn("the account %s has expired (%s): the relay refuses these lines", a.Name, a.Expires.UTC().Format(time.RFC3339))
	}
}

func namesOf(cfg *Config) []string {
	names := make([]string, 0, cfg.Accounts.Len())
	cfg.Accounts.Range(func(a *account.Account) bool {
		names = append(names, a.Name)
		return true
	})
	return names
}

// nearest is the name that is the fewest edits away, "" if none is near.
func nearest(name string, names []string) string {
	best, distance := "", max(len(name)/2, 1)+1
	for _, n := range names {
		if d := levenshtein.ComputeDistance(name, n); d < distance {
			best, distance = n, d
		}
	}
	return best
}

// checkWishes says of the lines' parameters what the relay would say. The error begins with the flag.
func checkWishes(cfg *Config, l *proxyList) error {
	if cfg.Auth.Mode == AuthPassthrough {
		return nil // there are none
	}
	q := &l.question
	var params vendor.Params
	if text := q.params(exampleSession); text != "" {
		var fault *vendor.Fault
		if params, fault = vendor.ParseParams(text); fault != nil {
			pool, _ := l.servingPool()
			return q.faulty(fault, faultAdvice(cfg, pool, fault))
		}
	}
	pool, ok := l.servingPool()
	if !ok {
		return fmt.Errorf("--pool: %s may not choose %q; the account is served by %q and may choose %s (pools of the account)",
			q.user, q.wishes.pool, pool, cmp.Or(strings.Join(l.account.Pools, ", "), "no other"))
	}
	if pools := cfg.pools(); !slices.Contains(pools, pool) {
		return fmt.Errorf("--pool: no gateway is in %q; there are %s", pool, strings.Join(pools, ", "))
	}
	// A pool that is never run dials nothing.
	gateways, err := upstream.NewPool(upstream.Options{
		Gateways: cfg.Gateways, Balance: string(cfg.Balance), DialTimeout: cfg.Timeouts.Dial, ConnectTimeout: cfg.Timeouts.Connect,
	})
	if err != nil {
		return err
	}
	defer gateways.Close()
	_, err = gateways.Route(upstream.Choice{Pool: pool, Account: q.user, Params: params})
	var fault *vendor.Fault
	if errors.As(err, &fault) {
		return q.faulty(fault, faultAdvice(cfg, pool, fault))
	}
	return err
}

// faulty is what is wrong with a parameter, by the flag that it came from, and what to do.
func (q *proxiesQuestion) faulty(fault *vendor.Fault, advice string) error {
	err := fmt.Errorf("%w Do: %s", fault, advice)
	if fault.Key == "" {
		return err
	}
	return fmt.Errorf("--%s: %w", q.flagOf(fault.Key), err)
}

// servingPool is the pool that the lines lead to, and whether the customer may choose it. If only the relay knows the
// account, he may.
func (l *proxyList) servingPool() (pool string, ok bool) {
	wanted := l.question.wishes.pool
	if pool, ok = proxy.PoolFor(l.door.pool, l.account, wanted); ok {
		return pool, true
	}
	if l.account == nil {
		return wanted, true
	}
	pool, _ = proxy.PoolFor(l.door.pool, l.account, "")
	return pool, false
}

// findPassword takes the password from the file that was given, or from the account if that has it as plain text.
func (l *proxyList) findPassword(ctx context.Context, cfg *Config, stdin io.Reader) error {
	user, known := l.question.user, false
	if l.account != nil {
		l.password, known = l.account.PlainPassword()
	}
	switch path := l.question.passwordFile; {
	case path == "" && known:
		return nil
	case path == "" && l.account != nil:
		return fmt.Errorf("--password-file: missing; the password of %s is known as a hash only. Write a file's name, or - for standard input", user)
	case path == "":
		return fmt.Errorf("--password-file: missing; the password of %s is not kept here. Write a file's name, or - for standard input", user)
	case path == "-":
		var err error
		if l.password, err = readPassword(stdin); err != nil {
			return fmt.Errorf("--password-file: %w", err)
		}
	default:
		data, err := readFile(path, maxPasswordInput)
		if err != nil {
			return fmt.Errorf("--password-file: %w", err)
		}
		if l.password = trimNewline(string(data)); l.password == "" {
			return fmt.Errorf("--password-file: %s is empty", path)
		}
	}
	if l.account == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, passwordTimeout)
	defer cancel()
	if _, err := cfg.Accounts.Authenticate(ctx, user, l.password); errors.Is(err, account.ErrRefused) {
		return fmt.Errorf("--password-file: that is not the password of %s", user)
	} else if err != nil {
		return fmt.Errorf("--password-file: %w", err)
	}
	return nil
}

// checkLogin makes sure that the relay could read what customers will send.
func (l *proxyList) checkLogin() error {
	if l.question.asJSON && !utf8.ValidString(l.password) {
		return errors.New("--json: the password is not UTF-8, which JSON cannot say")
	}
	username := l.username(exampleSession)
	token := base64.StdEncoding.EncodeToString([]byte(username + ":" + l.password))
	got, err := account.ParseBasic([]byte("Basic " + token))
	switch {
	case err == nil && got.Username == username && got.Password == l.password:
		return nil
	case strings.Contains(username, ":"):
		return errors.New("--user: a username cannot contain a colon (RFC 7617 §2)")
	}
	return errors.New("--user: no login can carry such a name and password: control bytes, or far too long")
}
