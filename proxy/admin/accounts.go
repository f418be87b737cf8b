package admin

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
)

// AccountAPI is where the accounts are. Its methods are called by several requests at a
// time; each call's context has a deadline.
type AccountAPI interface {
	// ReadOnly returns why accounts cannot be changed here, for the operator; empty
	// means that they can. It is asked once.
	ReadOnly() string
	// Exists reports whether there may be an account of that name.
	Exists(ctx context.Context, name string) (bool, error)
	// Get returns one account. The error may be [ErrNoAccount].
	Get(ctx context.Context, name string) (AccountRow, error)
	// List returns accounts in the order of their names.
	List(ctx context.Context, q AccountQuery) (AccountPage, error)
	// Write creates or changes one account, and reports whether it is new. The error
	// may be ErrNoAccount, [ErrAccountExists], [ErrPrecondition] or an [InvalidError].
	Write(ctx context.Context, w AccountWrite) (row AccountRow, created bool, err error)
	// Delete deletes one account. The error may be ErrNoAccount or ErrPrecondition.
	Delete(ctx context.Context, name string, only Precondition) error
}

var (
	// ErrNoAccount means that there is no such account. It is a 404.
	ErrNoAccount = errors.New("admin: no such account")
	// ErrAccountExists means that the name is taken. It is a 409.
	ErrAccountExists = errors.New("admin: the account exists already")
	// ErrPrecondition means that the account is not as the writer thought: another one was
	// faster. It is a 412.
	ErrPrecondition = errors.New("admin: the account has another version; read it again")
)

// InvalidError is all that is wrong with an account that was sent. It is a 422.
type InvalidError struct {
	// Problems are for the operator, and never quote a password.
	Problems []string
}

// Error returns all problems.
func (e *InvalidError) Error() string { return strings.Join(e.Problems, "; ") }

// ConflictError is why an account of that name cannot be changed here. It is a 409.
type ConflictError struct{ Reason string }

// Error returns the reason.
func (e *ConflictError) Error() string { return e.Reason }

// AccountRow is one account as it is shown.
type AccountRow struct {
	Name string
	// Object is a JSON object of the accounts file's shape, without the password.
	Object json.RawMessage
	// Source is "file", "environment", "redis" or "hook".
	Source string
	// Version changes with each write; empty where the source has none.
	Version string
}

// AccountQuery says which accounts are asked for: up to Limit that begin with Prefix and
// come after Cursor, which is what the last page's Next was, or empty.
type AccountQuery struct {
	Prefix, Cursor string
	Limit          int
}

// AccountPage is a part of the accounts. Next is empty on the last one.
type AccountPage struct {
	Accounts []AccountRow
	Next     string
}

// AccountWrite is one account to be written.
type AccountWrite struct {
	// Name is the account's name, empty for one that Body names and that must be new.
	Name string
	// Body is JSON of the accounts file's shape, as it was sent: of the whole account, or
	// of what is to change in it (RFC 7396) if Merge is set.
	Body  []byte
	Merge bool
	Only  Precondition
}

// Precondition is what must be true of an account for a write to happen. The zero
// Precondition is nothing.
type Precondition struct {
	// Absent wants no such account, Present any version of it.
	Absent, Present bool
	// Versions wants one of these; nil is no such wish.
	Versions []string
}

// AccountStatus is what an account is doing on this relay.
type AccountStatus struct {
	Connections int `json:"connections"`
	// ConnectionsLimit is the cap in force, 0 for none.
	ConnectionsLimit int `json:"connections_limit"`
	// Sent and Received are bytes since the relay began, as the customer sees them.
	Sent     int64 `json:"sent"`
	Received int64 `json:"received"`
	// QuotaUsed is of the current period, of all relays; nil for an account without a quota.
	QuotaUsed *int64 `json:"quota_used,omitempty"`
}
