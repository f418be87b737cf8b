package accountapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"maskrelay/proxy/account"
	"maskrelay/proxy/account/redisaccounts"
	"maskrelay/proxy/admin"
)

// maxTries is how often a write that others overtake is made anew.
const maxTries = 8

// Accounts are those that a relay serves: an account.Store or an account.Hook.
type Accounts interface {
	// Lookup returns the account of that name, and reports whether there is one.
	Lookup(name string) (*account.Account, bool)
	// Range calls f for every account until it returns false.
	Range(f func(*account.Account) bool)
}

// origins are told by Accounts whose accounts come from several places and are all known.
type origins interface {
	Origin(name string) (account.Origin, bool)
}

// Config says where the accounts are.
type Config struct {
	// Accounts is required.
	Accounts Accounts
	// Store is where accounts are changed; nil means that they are not.
	Store *redisaccounts.Store
	// Check is asked about each account that is to be written, as account.StoreConfig's
	// is; nil = none.
	Check func(*account.Account) error
}

// API implements admin.AccountAPI. Safe for concurrent use.
type API struct {
	accounts Accounts
	origins  origins // nil if the accounts are a hook's
	store    *redisaccounts.Store
	check    func(*account.Account) error // nil = none
}

// New returns the API.
func New(c Config) *API {
	a := &API{accounts: c.Accounts, store: c.Store, check: c.Check}
	a.origins, _ = c.Accounts.(origins)
	return a
}

var _ admin.AccountAPI = (*API)(nil)

// ReadOnly returns why accounts cannot be changed; empty means that they can.
func (a *API) ReadOnly() string {
	switch {
	case a.store != nil:
		return ""
	case a.origins == nil:
		return "accounts are the hook's and cannot be changed here"
	}
	return "accounts come from the accounts file and the environment and cannot be changed here; " +
		"they can where MASKRELAY_ACCOUNTS_REDIS keeps them in Redis"
}

// Exists reports whether there may be an account of that name: a hook has more than it
// has told this relay, and Redis may be out of reach.
func (a *API) Exists(ctx context.Context, name string) (bool, error) {
	if account.CheckName(name) != nil {
		return false, nil
	}
	if _, ok := a.accounts.Lookup(name); ok || a.origins == nil {
		return true, nil
	}
	if a.store == nil {
		return false, nil
	}
	_, err := a.store.Get(ctx, name) // it may be new
	return !errors.Is(err, redisaccounts.ErrNotFound), nil
}

// Get returns one account, as it is in Redis if that is where it is kept and can be asked,
// and else as it is served.
func (a *API) Get(ctx context.Context, name string) (admin.AccountRow, error) {
	served, ok := a.accounts.Lookup(name)
	if a.store == nil || a.fixed(name) != "" || account.CheckName(name) != nil {
		if !ok {
			return admin.AccountRow{}, admin.ErrNoAccount
		}
		return a.row(served), nil
	}
	found, err := a.find(ctx, name)
	switch {
	case err != nil && ok:
		return a.row(served), nil
	case err != nil:
		return admin.AccountRow{}, err
	case !found.exists:
		return admin.AccountRow{}, admin.ErrNoAccount
	case found.bad != nil:
		return admin.AccountRow{}, fmt.Errorf("the record in Redis is not valid: %w; it can be replaced or deleted", found.bad)
	}
	return redisRow(found.account, found.version), nil
}

// List returns accounts that the relay serves, in the order of their names.
func (a *API) List(_ context.Context, q admin.AccountQuery) (admin.AccountPage, error) {
	// The first Limit of them and one more, which tells that there are more.
	var first []*account.Account
	a.accounts.Range(func(one *account.Account) bool {
		if one.Name <= q.Cursor || !strings.HasPrefix(one.Name, q.Prefix) {
			return true
		}
		at, _ := slices.BinarySearchFunc(first, one.Name, func(b *account.Account, name string) int {
			return strings.Compare(b.Name, name)
		})
		if at <= q.Limit {
			first = slices.Insert(first, at, one)
			first = first[:min(len(first), q.Limit+1)]
		}
		return true
	})
	var page admin.AccountPage
	if len(first) > q.Limit {
		first = first[:q.Limit]
		page.Next = first[q.Limit-1].Name
	}
	for _, one := range first {
		page.Accounts = append(page.Accounts, a.row(one))
	}
	return page, nil
}

// fixed returns which source has the account of that name and cannot be changed; empty
// is none.
func (a *API) fixed(name string) string {
	if a.origins == nil {
		return account.FromHook
	}
	switch origin, _ := a.origins.Origin(name); origin.Source {
	case account.FromFile, account.FromEnvironment:
		return origin.Source
	}
	return ""
}

// row shows an account that the relay serves.
func (a *API) row(one *account.Account) admin.AccountRow {
	row := admin.AccountRow{Name: one.Name, Object: one.JSON(), Source: account.FromHook}
	if a.origins != nil {
		origin, _ := a.origins.Origin(one.Name)
		row.Source = origin.Source
		if origin.Version > 0 {
			row.Version = strconv.FormatInt(origin.Version, 10)
		}
	}
	return row
}

func redisRow(one *account.Account, version int64) admin.AccountRow {
	return admin.AccountRow{
		Name: one.Name, Object: one.JSON(), Source: redisaccounts.Name, Version: strconv.FormatInt(version, 10),
	}
}

// found is what Redis has under a name.
type found struct {
	exists  bool
	version int64
	account *account.Account // nil if it is not valid
	bad     error            // why it is not
}

func (a *API) find(ctx context.Context, name string) (found, error) {
	e, err := a.store.Get(ctx, name)
	if errors.Is(err, redisaccounts.ErrNotFound) {
		return found{}, nil
	}
	if err != nil {
		return found{}, err
	}
	f := found{exists: true, version: e.Version}
	f.account, f.bad = account.ParseJSON(name, e.Data)
	return f, nil
}
