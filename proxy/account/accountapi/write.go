package accountapi

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"maskrelay/proxy/account"
	"maskrelay/proxy/account/redisaccounts"
	"maskrelay/proxy/admin"
)

// Write creates or changes an account in Redis. A password that is not given stays as it
// is; a new account must have one.
func (a *API) Write(ctx context.Context, w admin.AccountWrite) (admin.AccountRow, bool, error) {
	if a.store == nil {
		return admin.AccountRow{}, false, &admin.ConflictError{Reason: a.ReadOnly()}
	}
	creates := w.Name == ""
	if creates {
		named, err := account.ParseJSON("", w.Body)
		if err != nil {
			return admin.AccountRow{}, false, invalid(err)
		}
		w.Name, w.Only = named.Name, admin.Precondition{Absent: true}
	}
	if err := a.refuseFixed(w.Name); err != nil {
		return admin.AccountRow{}, false, err
	}
	for range maxTries {
		row, created, err := a.writeOnce(ctx, w)
		switch {
		case errors.Is(err, redisaccounts.ErrConflict), errors.Is(err, redisaccounts.ErrNotFound):
			continue // another writer was faster: look again
		case errors.Is(err, admin.ErrPrecondition) && creates:
			err = admin.ErrAccountExists
		}
		return row, created, err
	}
	return admin.AccountRow{}, false, &admin.ConflictError{Reason: "the account is changed by others all the time; try again"}
}

// writeOnce reads, judges and writes.
func (a *API) writeOnce(ctx context.Context, w admin.AccountWrite) (admin.AccountRow, bool, error) {
	was := found{}
	if account.CheckName(w.Name) == nil { // else next says what is wrong
		var err error
		if was, err = a.find(ctx, w.Name); err != nil {
			return admin.AccountRow{}, false, err
		}
	}
	if w.Merge && !was.exists {
		return admin.AccountRow{}, false, admin.ErrNoAccount
	}
	if !holds(w.Only, was) {
		return admin.AccountRow{}, false, admin.ErrPrecondition
	}
	is, err := next(w, was)
	if err == nil && a.check != nil {
		err = a.check(is)
	}
	if err != nil {
		return admin.AccountRow{}, false, invalid(err)
	}
	data, err := is.StoredJSON()
	if err != nil {
		return admin.AccountRow{}, false, invalid(err)
	}
	version, err := a.store.Put(ctx, is.Name, data, was.version) // 0 is MustNotExist
	if err != nil {
		return admin.AccountRow{}, false, err
	}
	return redisRow(is, version), !was.exists, nil
}

// next returns the account that is to be written.
func next(w admin.AccountWrite, was found) (*account.Account, error) {
	if w.Merge {
		if was.bad != nil {
			return nil, errors.Join(errors.New("account: the record in Redis is not valid and can only be replaced"), was.bad)
		}
		is, err := was.account.Merge(w.Body)
		if err != nil {
			return nil, err
		}
		return withPassword(is, was)
	}
	is, err := account.ParseJSON(w.Name, w.Body)
	if err != nil {
		return nil, err
	}
	return withPassword(is, was)
}

// withPassword returns is with a password, its own or the one that it had.
func withPassword(is *account.Account, was found) (*account.Account, error) {
	if !is.HasPassword() && was.account != nil {
		is = is.WithPasswordOf(was.account)
	}
	if !is.HasPassword() {
		return nil, errors.New("account: password: is missing")
	}
	return is.KeepHash(was.account), nil
}

// Delete deletes an account from Redis.
func (a *API) Delete(ctx context.Context, name string, only admin.Precondition) error {
	if a.store == nil {
		return &admin.ConflictError{Reason: a.ReadOnly()}
	}
	if account.CheckName(name) != nil {
		return admin.ErrNoAccount
	}
	if err := a.refuseFixed(name); err != nil {
		return err
	}
	for range maxTries {
		was, err := a.find(ctx, name)
		switch {
		case err != nil:
			return err
		case !was.exists:
			return admin.ErrNoAccount
		case !holds(only, was):
			return admin.ErrPrecondition
		}
		err = a.store.Delete(ctx, name, was.version)
		switch {
		case errors.Is(err, redisaccounts.ErrConflict):
			continue
		case errors.Is(err, redisaccounts.ErrNotFound):
			return admin.ErrNoAccount
		}
		return err
	}
	return &admin.ConflictError{Reason: "the account is changed by others all the time; try again"}
}

// refuseFixed returns why the account of that name cannot be changed, nil if it can.
func (a *API) refuseFixed(name string) error {
	switch a.fixed(name) {
	case account.FromFile:
		return &admin.ConflictError{Reason: "the account is in the accounts file, and is changed there"}
	case account.FromEnvironment:
		return &admin.ConflictError{Reason: "the account is in the environment, and is changed there"}
	}
	return nil
}

// holds reports whether p is true of what was found.
func holds(p admin.Precondition, f found) bool {
	return !(p.Absent && f.exists || p.Present && !f.exists ||
		p.Versions != nil && (!f.exists || !slices.Contains(p.Versions, strconv.FormatInt(f.version, 10))))
}

// invalid returns all problems of err, which are lines, as the API names them.
func invalid(err error) error {
	var problems []string
	for line := range strings.Lines(err.Error()) {
		problems = append(problems, strings.TrimPrefix(strings.TrimSpace(line), "account: "))
	}
	return &admin.InvalidError{Problems: problems}
}
