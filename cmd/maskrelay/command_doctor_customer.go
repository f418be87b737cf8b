package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"

	"maskrelay/proxy"
	"maskrelay/proxy/account"
	"maskrelay/upstream"
	"maskrelay/upstream/vendor"
)

// doctorCustomer is who the doctor goes as.
type doctorCustomer struct {
	mode     AuthMode
	username string // as it is sent; "" = nobody
	shown    string // the username, if it may be seen
	password string // "" = not known
	given    bool   // the password came from --password-file
	missing  string // why there is no password

	name    string           // of the account
	account *account.Account // nil = not known to this environment
	params  vendor.Params
	fault   *vendor.Fault // what is wrong with the parameters
	pool    string        // that serves him
	home    string        // the pool that serves him unless he or his account says otherwise; "" = the default
}

// passthrough is the Proxy-Authorization value that takes the place of the gateways' logins, "" = none does.
func (c *doctorCustomer) passthrough() string {
	if c.mode != AuthPassthrough || !c.complete() {
		return ""
	}
	return c.authorization()
}

// complete reports whether there is all that the relay asks for.
func (c *doctorCustomer) complete() bool { return c.username != "" && c.password != "" }

func (c *doctorCustomer) authorization() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.username+":"+c.password))
}

// newCustomer reads who to go as. The error is about the command line; what the accounts say is a hop.
func (d *doctorRun) newCustomer(p process) (doctorCustomer, error) {
	c := doctorCustomer{mode: d.cfg.Auth.Mode, username: d.flags.user, home: d.listener.pool}
	if d.flags.passwordFile != "" {
		var err error
		if c.password, err = passwordFrom(d.flags.passwordFile, p.stdin); err != nil {
			return c, fmt.Errorf("--password-file: %w", err)
		}
		c.given = true
	}
	if c.username == "" {
		c.missing = "no --user"
		if c.given {
			return c, errors.New("--password-file: needs --user")
		}
		return c, nil
	}
	if strings.Contains(c.username, ":") {
		return c, errors.New("--user: a username has no colon; the password goes into --password-file")
	}
	if c.mode == AuthPassthrough { // the username is the vendor's, and as secret as its login
		c.missing = "AUTH=passthrough: give the customer's own password at the vendor by --password-file"
		return c, nil
	}
	c.shown = c.username
	return c, d.knowCustomer(&c)
}

// knowCustomer takes the username apart and looks the account up.
func (d *doctorRun) knowCustomer(c *doctorCustomer) error {
	split := account.SplitUsername(c.username)
	if err := account.CheckName(split.Name); err != nil {
		return fmt.Errorf("--user: %w", err)
	}
	c.name = split.Name
	if split.Params != "" {
		c.params, c.fault = vendor.ParseParams(split.Params)
	}
	if d.cfg.Accounts != nil {
		c.account, _ = d.cfg.Accounts.Lookup(c.name)
	}
	switch {
	case c.given:
	case c.account == nil:
		c.missing = "the password is not known here: give --password-file"
	default:
		var plain bool
		if c.password, plain = c.account.PlainPassword(); !plain {
			c.missing = "the account's password is a hash: give --password-file"
		}
	}
	c.pool = c.poolName()
	return nil
}

// ownPool is the pool that serves the customer when he asks for none.
func (c *doctorCustomer) ownPool() string {
	return cmp.Or(c.account.Pool, c.home, upstream.DefaultPool)
}

// poolName is the pool that serves the customer, "" if only the relay can know.
func (c *doctorCustomer) poolName() string {
	switch {
	case c.account == nil:
		return c.params.Pool
	case c.params.Pool != "" && c.mayChoosePool():
		return c.params.Pool
	default:
		return c.ownPool()
	}
}

// mayChoosePool reports whether the account may name the pool that its parameters name.
func (c *doctorCustomer) mayChoosePool() bool {
	asked := c.params.Pool
	return c.account == nil || asked == "" || asked == c.ownPool() || slices.Contains(c.account.Pools, asked)
}

// passwordFrom reads a password from a file, or from standard input for "-".
func passwordFrom(path string, stdin io.Reader) (string, error) {
	if path == "-" {
		return readPassword(stdin)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxPasswordInput+1))
	if err != nil {
		return "", err
	}
	password := trimNewline(string(data))
	switch {
	case len(data) > maxPasswordInput:
		return "", fmt.Errorf("more than %d bytes in %s", maxPasswordInput, path)
	case password == "":
		return "", fmt.Errorf("no password in %s", path)
	}
	return password, nil
}

// examineCustomer says what this environment knows of the account: all that the relay would look at before it dials.
func (d *doctorRun) examineCustomer(ctx context.Context) doctorPart {
	c := &d.customer
	part := doctorPart{Kind: "customer", Name: c.shown}
	if c.username == "" {
		return part
	}
	part.Hops = append(part.Hops, d.accountHop())
	if c.mode != AuthPassthrough {
		part.Hops = append(part.Hops, d.passwordHop(ctx))
	}
	if c.fault != nil || c.params != (vendor.Params{}) {
		part.Hops = append(part.Hops, d.paramsHop())
	}
	return part
}

func (d *doctorRun) accountHop() doctorHop {
	c, a := &d.customer, d.customer.account
	bad := func(cause, detail, remedy string) doctorHop {
		return doctorHop{Hop: "account", Result: upstream.HopFailed, Cause: cause, Detail: detail, Remedy: remedy}
	}
	skip := func(why string) doctorHop {
		return doctorHop{Hop: "account", Result: upstream.HopSkipped, Detail: why}
	}
	switch {
	case c.mode == AuthOpen:
		return skip("AUTH=open asks nobody for an account")
	case c.mode == AuthPassthrough:
		return skip("AUTH=passthrough: the vendor knows the customers")
	case c.mode == AuthHook:
		return skip("AUTH=hook: only the relay asks the hook")
	case a == nil && d.cfg.Auth.InRedis:
		return skip("not in the file or the list; the relay finds it if it is in Redis")
	case a == nil:
		return bad("unknown_account", "there is no such account", "add it to "+envPrefix+"ACCOUNTS_FILE, or check its spelling"+d.nearest(c.name))
	case a.Disabled:
		return bad("account_disabled", "the account is disabled", "take disabled out of the account, if it is to be served")
	case a.Expired(time.Now()):
		return bad("account_expired", "the account expired on "+a.Expires.UTC().Format("2006-01-02"), "give the account a later expires")
	}
	return doctorHop{Hop: "account", Result: upstream.HopOK, Detail: "known and not disabled; pool " + c.pool}
}

// nearest suggests the account whose name is like name.
func (d *doctorRun) nearest(name string) string {
	best, least := "", 3
	d.cfg.Accounts.Range(func(a *account.Account) bool {
		if n := levenshtein.ComputeDistance(name, a.Name); n < least {
			best, least = a.Name, n
		}
		return true
	})
	if best == "" {
		return ""
	}
	return "; there is " + best
}

func (d *doctorRun) passwordHop(ctx context.Context) doctorHop {
	c := &d.customer
	hop := doctorHop{Hop: "password", Result: upstream.HopSkipped, Detail: c.missing}
	switch {
	case c.mode == AuthOpen:
		hop.Detail = "AUTH=open asks nobody for a password"
	case !c.complete():
	case c.account == nil:
		hop.Detail = "given; there is nothing here to check it against"
	default:
		if _, err := d.cfg.Accounts.Authenticate(ctx, c.name, c.password); errors.Is(err, account.ErrRefused) {
			hop.Result, hop.Cause, hop.Detail = upstream.HopFailed, "wrong_password", "the password given is not the account's"
			hop.Remedy = "give the customer's password, or change the account's"
		} else if err != nil {
			hop.Detail = "not checked: " + oneLine(err)
		} else {
			hop.Result, hop.Detail = upstream.HopOK, "it is the account's"
		}
	}
	return hop
}

// badParameters is the cause as the log names it.
const badParameters = string(proxy.BadParams)

// paramsHop asks whether any gateway of the pool can do what the username asks for.
func (d *doctorRun) paramsHop() doctorHop {
	c := &d.customer
	hop := doctorHop{Hop: "parameters", Result: upstream.HopOK, Detail: "understood"}
	refuse := func(cause, detail, remedy string) doctorHop {
		return doctorHop{Hop: "parameters", Result: upstream.HopFailed, Cause: cause, Detail: detail, Remedy: remedy}
	}
	if c.fault != nil {
		return refuse(badParameters, c.fault.Error(), faultAdvice(d.cfg, c.pool, c.fault))
	}
	if !c.mayChoosePool() {
		return refuse(badParameters, "the account may not choose this pool", "add the pool to the account's pools, or leave the parameter out")
	}
	options := d.diagnoseConfig().Options
	options.Gateways = d.cfg.Gateways
	pool, err := upstream.NewPool(options)
	if err != nil {
		return refuse("configuration", oneLine(err), "run maskrelay check")
	}
	defer pool.Close()
	if _, err := pool.Route(upstream.Choice{Pool: c.pool, Account: c.name, Params: c.params}); err != nil {
		advice := "choose other parameters, or a pool whose vendor can do this (maskrelay vendors tells)"
		if fault := (*vendor.Fault)(nil); errors.As(err, &fault) {
			advice = faultAdvice(d.cfg, c.pool, fault)
		}
		return refuse(badParameters, oneLine(err), advice)
	}
	return hop
}
