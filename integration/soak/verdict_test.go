package soak

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// killShadow is how long before and after a kill what goes on with that vendor may break.
const killShadow = 2 * time.Second

// excusedLocked reports whether the tunnel may have broken off without anybody's fault: its vendor was killed, or its account barred.
func (l *ledger) excusedLocked(e *entry) bool {
	if e.customer == nil {
		return false
	}
	if e.customer.Account == barred {
		return true
	}
	if e.spec.Mode == leave && len(e.lines) == 0 {
		return true // he left before the relay had read his request
	}
	final := e.final()
	if len(final) > 0 && final[0].Upstream != killedVendor {
		return false
	}
	from, over := time.Unix(0, e.customer.Start).Add(-killShadow), e.customer.Stop
	if len(final) > 0 {
		over = max(over, final[0].Came) // the customer had gone, but not all that he had sent
	}
	to := time.Unix(0, over).Add(killShadow)
	if len(final) > 0 && e.vendorOf(final[0]) == nil {
		to = to.Add(2 * longPause) // it was still reading what the relay had delivered
	}
	return slices.ContainsFunc(l.kills, func(k time.Time) bool { return k.After(from) && k.Before(to) })
}

// verdictLocked says what is wrong with a tunnel; empty = nothing.
func (l *ledger) verdictLocked(e *entry) string {
	c := e.customer
	if c == nil || e.customers != 1 {
		return fmt.Sprintf("%d reports of a customer", e.customers)
	}
	if c.Bad != "" {
		return "the customer says: " + c.Bad
	}
	for _, v := range e.vendors {
		if v.Bad != "" {
			return "the vendor says: " + v.Bad
		}
		if v.End == endLate {
			return "the vendor ran into its time limit"
		}
	}
	if c.End == endLate {
		return "the customer ran into his time limit"
	}
	if why := cmp.Or(l.sessionLocked(e), e.misplaced(), e.refusals()); why != "" {
		return why
	}
	final := e.final()
	if len(final) > 1 {
		return "more than one exchange in the log"
	}
	if c.Status == http.StatusTooManyRequests && c.Account == capped {
		return "" // he gave up
	}
	excused := l.excusedLocked(e)
	if len(final) == 0 && (c.Status != 0 || !excused) {
		return "no exchange in the log"
	}
	if excused {
		return "" // the pieces were right, which is all that can be asked
	}
	if !e.spec.Mode.carries() {
		return e.refusal(final[0])
	}
	return e.carried(final[0])
}

// refusals compares the customer's count of refusals with the log's.
func (e *entry) refusals() string {
	auth, limit := 0, 0
	for _, line := range e.lines {
		switch line.Outcome {
		case "auth_failed":
			auth++
		case "cap_conns":
			limit++
		}
	}
	if c := e.customer; c.Status != 0 && (auth != c.Auth || limit != c.Cap) {
		return fmt.Sprintf("the log has %d refused logins and %d refusals for the cap, the customer got %d and %d", auth, limit, e.customer.Auth, e.customer.Cap)
	}
	return ""
}

// refusal judges a tunnel that no vendor opened.
func (e *entry) refusal(line logLine) string {
	want := map[mode][]string{silent: {"upstream_timeout", "upstream_failed"}, leave: {"client_gone", "upstream_timeout"}}[e.spec.Mode]
	if want == nil {
		want = []string{"upstream_failed"}
	}
	if !slices.Contains(want, line.Outcome) {
		return fmt.Sprintf("outcome %s, want one of %v", line.Outcome, want)
	}
	if e.spec.Mode != leave && e.customer.Status != line.Status {
		return fmt.Sprintf("the customer got %d, the log says %d", e.customer.Status, line.Status)
	}
	if line.Sent+line.Received != 0 {
		return fmt.Sprintf("%d bytes sent and %d received are booked", line.Sent, line.Received)
	}
	return ""
}

// vendorOf returns the report of the vendor that the log names.
func (e *entry) vendorOf(line logLine) *report {
	for i := range e.vendors {
		if e.vendors[i].Side == line.Upstream {
			return &e.vendors[i]
		}
	}
	return nil
}

// carried judges a tunnel that was open, or a plain request that was answered.
func (e *entry) carried(line logLine) string {
	c, v := e.customer, e.vendorOf(line)
	if want := e.wantStatus(); c.Status != want || line.Status != want {
		return fmt.Sprintf("status %d for the customer, %d in the log, want %d", c.Status, line.Status, want)
	}
	if v == nil {
		return "the vendor of the log's line says nothing"
	}
	if v.Got > c.Sent && e.spec.Mode != get || c.Got > v.Sent {
		return "more arrived than was sent"
	}
	switch e.spec.Mode {
	case clientReset:
		return e.broken(line, "client_reset", v.End)
	case vendorReset:
		return e.broken(line, "upstream_reset", c.End)
	case abandoned:
		return "" // whether the relay has noticed depends on what it still had to write
	}
	got := [...]any{c.Sent, c.Got, c.End, v.Sent, v.Got, v.End, line.Outcome, line.Sent, line.Received}
	want := [...]any{e.spec.Up, e.spec.Down, endOrderly, e.spec.Down, e.spec.Up, endOrderly, "ok", e.spec.Up, e.spec.Down}
	if got != want {
		return fmt.Sprintf("customer sent, got, end; vendor likewise; log outcome, sent, received: %v, want %v", got, want)
	}
	return ""
}

func (e *entry) wantStatus() int {
	if e.spec.Mode == upgrade {
		return http.StatusSwitchingProtocols
	}
	return http.StatusOK
}

// broken judges a tunnel that one end has reset: the other end must have seen that, and not an orderly end.
func (e *entry) broken(line logLine, outcome, otherEnd string) string {
	v := e.vendorOf(line)
	switch {
	case otherEnd != endBroken:
		return fmt.Sprintf("the reset arrived as %q", otherEnd)
	case line.Outcome != outcome:
		return fmt.Sprintf("outcome %s, want %s", line.Outcome, outcome)
	case line.Sent < v.Got && e.spec.Mode == clientReset || line.Received < e.customer.Got && e.spec.Mode == vendorReset:
		return "more arrived than is booked"
	case line.Sent > e.spec.Up || line.Received > e.spec.Down:
		return "more is booked than there was"
	}
	return ""
}
