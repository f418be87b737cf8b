package main

import (
	"fmt"
	"slices"
	"strings"
)

// AuthMode says who checks a customer's credentials.
type AuthMode string

// The modes of MASKRELAY_AUTH.
const (
	AuthAccounts    AuthMode = "accounts"    // the relay, against its accounts
	AuthPassthrough AuthMode = "passthrough" // the vendor
	AuthOpen        AuthMode = "open"        // nobody; the client's address decides
)

// UnmarshalText parses a mode.
func (m *AuthMode) UnmarshalText(text []byte) (err error) {
	*m, err = choose(string(text), []AuthMode{AuthAccounts, AuthPassthrough, AuthOpen}, "hook")
	return err
}

// Balance says how gateways share the connections.
type Balance string

// The ways of MASKRELAY_BALANCE.
const (
	RoundRobin Balance = "round_robin"
	LeastConn  Balance = "least_conn"
)

// UnmarshalText parses a way of balancing.
func (b *Balance) UnmarshalText(text []byte) (err error) {
	*b, err = choose(string(text), []Balance{RoundRobin, LeastConn}, "ip_hash", "user_hash")
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

// choose finds s among the choices; those in later are refused by name.
func choose[T ~string](s string, choices []T, later ...string) (T, error) {
	if slices.Contains(choices, T(s)) {
		return T(s), nil
	}
	if slices.Contains(later, s) {
		return "", fmt.Errorf("%q is %w; choose %s", s, errNotYet, strings.ReplaceAll(join(choices), ",", ", "))
	}
	return "", fmt.Errorf("%q is not one of %s", s, strings.ReplaceAll(join(choices), ",", ", "))
}
