package main

import (
	"fmt"
	"slices"
	"strings"

	"maskrelay/proxy/account"
)

// AuthMode says who checks a customer's credentials.
type AuthMode string

// The modes of MASKRELAY_AUTH.
const (
	AuthAccounts    AuthMode = "accounts"    // the relay, against its accounts
	AuthHook        AuthMode = "hook"        // the operator's own service, asked once per credential
	AuthPassthrough AuthMode = "passthrough" // the vendor
	AuthOpen        AuthMode = "open"        // nobody; the client's address decides
)

// UnmarshalText parses a mode.
func (m *AuthMode) UnmarshalText(text []byte) (err error) {
	*m, err = choose(string(text), []AuthMode{AuthAccounts, AuthHook, AuthPassthrough, AuthOpen})
	return err
}

// HookStyle is how the hook is asked and answers.
type HookStyle string

// The styles of MASKRELAY_AUTH_STYLE.
const (
	HookJSON    HookStyle = "json"    // an account as JSON
	HookHeaders HookStyle = "headers" // 204 and header fields, as existing panels speak
)

// UnmarshalText parses a style.
func (s *HookStyle) UnmarshalText(text []byte) (err error) {
	*s, err = choose(string(text), []HookStyle{HookJSON, HookHeaders})
	return err
}

// RedisDown says how caps hold while Redis does not answer.
type RedisDown string

// The ways of MASKRELAY_REDIS_DOWN.
const (
	DownLocalShare RedisDown = "local_share" // each relay gives out its share of a cap
	DownOpen       RedisDown = "open"        // caps of the fleet do not bind
	DownClosed     RedisDown = "closed"      // nothing new is given out
)

// UnmarshalText parses a way.
func (d *RedisDown) UnmarshalText(text []byte) (err error) {
	*d, err = choose(string(text), []RedisDown{DownLocalShare, DownOpen, DownClosed})
	return err
}

// QuotaPeriod is when a quota begins anew.
type QuotaPeriod string

// The periods of MASKRELAY_USER_QUOTA_PERIOD.
const (
	QuotaLifetime QuotaPeriod = account.Lifetime // never
	QuotaMonthly  QuotaPeriod = account.Monthly  // with the calendar month, in UTC
)

// UnmarshalText parses a period.
func (q *QuotaPeriod) UnmarshalText(text []byte) (err error) {
	*q, err = choose(string(text), []QuotaPeriod{QuotaLifetime, QuotaMonthly})
	return err
}

// Balance says how gateways share the connections.
type Balance string

// The ways of MASKRELAY_BALANCE.
const (
	RoundRobin Balance = "round_robin"
	LeastConn  Balance = "least_conn"
	IPHash     Balance = "ip_hash"
	UserHash   Balance = "user_hash"
)

// UnmarshalText parses a way of balancing.
func (b *Balance) UnmarshalText(text []byte) (err error) {
	*b, err = choose(string(text), []Balance{RoundRobin, LeastConn, IPHash, UserHash})
	return err
}

// LogLevel is the least severity that is logged, in zerolog's spelling.
type LogLevel string

// UnmarshalText parses a level.
func (l *LogLevel) UnmarshalText(text []byte) (err error) {
	*l, err = choose(string(text), []LogLevel{"debug", "info", "warn", "error"})
	return err
}

// LogFormat is how log lines look.
type LogFormat string

// The formats of MASKRELAY_LOG_FORMAT.
const (
	LogJSON    LogFormat = "json"    // for machines
	LogConsole LogFormat = "console" // for people
)

// UnmarshalText parses a format.
func (f *LogFormat) UnmarshalText(text []byte) (err error) {
	*f, err = choose(string(text), []LogFormat{LogJSON, LogConsole})
	return err
}

// choose finds s among the choices.
func choose[T ~string](s string, choices []T) (T, error) {
	if slices.Contains(choices, T(s)) {
		return T(s), nil
	}
	return "", fmt.Errorf("%q is not one of %s", s, strings.ReplaceAll(join(choices), ",", ", "))
}
