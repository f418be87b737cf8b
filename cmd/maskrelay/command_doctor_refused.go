package main

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"maskrelay/upstream"
)

// refused explains the relay's own answer. What the customer sees is the same for many causes; what this environment knows
// tells them apart.
func (t *relayTrip) refused(status int) doctorHop {
	h := doctorHop{Hop: "exchange", Result: upstream.HopFailed, Status: status}
	detail := ""
	switch status {
	case http.StatusBadRequest:
		if t.params {
			h.Cause, detail, h.Remedy = badParameters, "the relay refuses the username's parameters", "see the hop parameters"
			break
		}
		h.Cause, detail, h.Remedy = "bad_request", "the relay does not take the request or the username's parameters",
			"see the hop parameters; if it is fine, the running relay has other pools or vendors than this environment: restart it"
	case http.StatusPaymentRequired:
		h.Cause, detail, h.Remedy = "quota_used", "the account's quota is used up",
			"look at maskrelay usage, raise the account's quota, or wait for the next period"
	case http.StatusForbidden:
		h.Cause, detail, h.Remedy = t.forbidden()
	case http.StatusProxyAuthRequired:
		h.Cause, detail, h.Remedy = t.unknown()
	case http.StatusTooManyRequests:
		h.Cause, detail, h.Remedy = "cap", "the account is over its cap of connections ("+t.cap()+") or its rate, or too many logins failed from here",
			"close connections, raise the account's max_conns or conn_rate, or wait a minute after failed logins; the relay's log names the outcome"
	case http.StatusServiceUnavailable:
		h.Cause, detail, h.Remedy = t.unavailable()
	case http.StatusGatewayTimeout:
		h.Cause, detail = "upstream_timeout", "no gateway answered the relay in time"
		h.Remedy = t.otherwise("the exits or the target are slow: try again, then another --target")
	default:
		h.Cause, detail = "upstream_failed", "the relay's own attempt through its gateways failed"
		h.Remedy = t.otherwise("the gateways work from here, so look at the relay's log (exchange, cause) for which gateway failed; " +
			"if it was started with other logins or gateways than this environment, restart it")
	}
	h.Detail = fmt.Sprintf("the relay answers %d: %s", status, detail)
	return h
}

// otherwise is advice for when the gateways work; else the gateways are what is to be cured.
func (t *relayTrip) otherwise(advice string) string {
	if t.works {
		return advice
	}
	return "cure the gateway that failed above; the relay fails as it does"
}

// forbidden finds what this environment forbids.
func (t *relayTrip) forbidden() (cause, detail, remedy string) {
	d, a := t.d, t.d.customer.account
	outside := func(list []netip.Prefix) bool {
		return len(list) > 0 && !slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(t.source) })
	}
	switch {
	case a != nil && a.Disabled:
		return "account_disabled", "the account is disabled", "take disabled out of the account, if it is to be served"
	case a != nil && a.Expired(time.Now()):
		return "account_expired", "the account has expired", "give the account a later expires"
	case outside(d.cfg.Auth.AllowFrom):
		return "client_denied", "this host's address " + t.source.String() + " is not in " + envPrefix + "ALLOW_FROM",
			"customers in those networks are served; add this host's address to test from here"
	case a != nil && !a.AllowsFrom(t.source):
		return "client_denied", "this host's address " + t.source.String() + " is not in the account's allow_from",
			"the customer's own networks are served; add this host's address to test from here"
	case !d.targets.Allow(d.at):
		return "target_denied", "the target is not allowed", "see the hop policy above"
	}
	return "forbidden", "this environment knows no reason",
		"the running relay has other accounts or target rules, or the account has used too many addresses (max_ips): its log names the outcome; restart it if it is out of date"
}

// unknown explains a 407.
func (t *relayTrip) unknown() (cause, detail, remedy string) {
	c := &t.d.customer
	switch {
	case c.mode == AuthPassthrough:
		return "upstream_auth", "the vendor refuses the customer's own login", "check the customer's login at the vendor"
	case t.d.customerFailed("password"):
		return "auth_failed", "the password is wrong", "give the customer's password, or change the account's"
	case c.account == nil:
		return "auth_failed", "the account is unknown or the password wrong", "check both; what is in Redis or behind the hook only the relay knows"
	}
	return "auth_failed", "the running relay does not know this account with this password",
		"this environment does: the relay was started with other accounts, or refused the changed file (maskrelay_accounts_reload_success is 0): send it SIGHUP and read its log, or restart it"
}

// customerFailed reports whether a hop of the customer's failed.
func (d *doctorRun) customerFailed(name string) bool {
	return slices.ContainsFunc(d.known, func(h doctorHop) bool { return h.Hop == name && h.Result == upstream.HopFailed })
}

// unavailable explains a 503.
func (t *relayTrip) unavailable() (cause, detail, remedy string) {
	switch {
	case strings.Contains(t.ready, "drain"):
		return "draining", "the relay is draining", "it is about to end; ask the one that takes its place"
	case t.ready != "":
		return "not_ready", t.ready, "the relay itself says why; its log says more"
	case t.works:
		return "relay_full", "the relay is full, or holds all its gateways for down",
			"look at maskrelay_connections against maskrelay_connections_limit, at maskrelay_upstream_up, and at the log's outcome of this exchange"
	}
	return "no_upstream", "the relay has no gateway that works", "cure the gateway that failed above; the relay comes back by itself"
}

// cap is the account's cap of connections, in words.
func (t *relayTrip) cap() string {
	n := t.d.cfg.User.UserMaxConns
	if a := t.d.customer.account; a != nil && a.MaxConns > 0 {
		n = a.MaxConns
	}
	if n == 0 {
		return "none here"
	}
	return fmt.Sprintf("%d", n)
}
