package redisaccounts

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"maskrelay/proxy/account"
)

// maxNamed is how many names an error has.
const maxNamed = 10

// Import writes accounts, which are valid and each of its own name. Others that are in
// Redis stay, but with replace they are deleted. It returns how many were added, changed,
// found as they are to be, and removed, up to an error too, after which it can be run again.
//
// Passwords in plain text are hashed, and so are those that are there already, to know
// whether they changed: either takes some 50 ms of one processor for each, all of which
// are used. An account that another writer changes meanwhile is left to him, and is part
// of the error. In a Redis without accounts relays see none until the last is there.
func Import(ctx context.Context, s *Store, accounts []*account.Account, replace bool) (added, changed, unchanged, removed int, err error) {
	t := transfer{ctx: ctx, store: s}
	if err := t.run(accounts, replace); err != nil {
		return t.added, t.changed, t.unchanged, t.removed, fmt.Errorf("redisaccounts: import: %w", err)
	}
	return t.added, t.changed, t.unchanged, t.removed, nil
}

// Compare tells what [Import] would do, in the same time, and writes nothing.
func Compare(ctx context.Context, s *Store, accounts []*account.Account, replace bool) (added, changed, unchanged, removed int, err error) {
	t := transfer{ctx: ctx, store: s}
	writes, err := t.plan(accounts, replace)
	if err != nil {
		return 0, 0, 0, 0, fmt.Errorf("redisaccounts: compare: %w", err)
	}
	for _, w := range writes {
		switch {
		case w.data == nil:
			t.removed++
		case w.ifVersion == MustNotExist:
			t.added++
		default:
			t.changed++
		}
	}
	return t.added, t.changed, t.unchanged, t.removed, nil
}

// transfer is one Import or Compare. It lives no longer than the call, and so may keep its context.
type transfer struct {
	ctx   context.Context
	store *Store
	was   map[string]Entry

	added, changed, unchanged, removed int
	overtaken                          []string
}

func (t *transfer) run(accounts []*account.Account, replace bool) error {
	writes, err := t.plan(accounts, replace)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(writes, batch) {
		if err := t.write(part); err != nil {
			return err
		}
	}
	if _, err := t.store.write(t.ctx, nil, false); err != nil { // all is there now
		return err
	}
	t.store.nudge(t.ctx)
	if n := len(t.overtaken); n > 0 {
		return fmt.Errorf("%d accounts were changed by others meanwhile, among them %s",
			n, strings.Join(t.overtaken[:min(n, maxNamed)], ", "))
	}
	return nil
}

// plan returns what is to be written, after looking at what is there.
func (t *transfer) plan(accounts []*account.Account, replace bool) ([]write, error) {
	c, err := t.store.changes(t.ctx, point{})
	if err != nil {
		return nil, err
	}
	t.was = make(map[string]Entry, len(c.entries))
	for _, e := range c.entries {
		if e.Data != nil {
			t.was[e.Name] = e
		}
	}
	writes, err := t.prepare(accounts)
	if err != nil {
		return nil, err
	}
	t.unchanged = len(accounts) - len(writes)
	if replace {
		writes = append(writes, t.deletions(accounts)...)
	}
	return writes, nil
}

// write carries out one batch and counts.
func (t *transfer) write(writes []write) error {
	results, err := t.store.write(t.ctx, writes, true)
	if err != nil {
		return err
	}
	for i, result := range results {
		w := writes[i]
		switch {
		case w.data == nil && (result.err == nil || errors.Is(result.err, ErrNotFound)):
			t.removed++
		case errors.Is(result.err, ErrConflict), errors.Is(result.err, ErrNotFound):
			t.overtaken = append(t.overtaken, w.name)
		case result.err != nil:
			return result.err
		case w.ifVersion == MustNotExist:
			t.added++
		default:
			t.changed++
		}
	}
	return nil
}

// prepare returns what must be written for accounts, on all processors.
func (t *transfer) prepare(accounts []*account.Account) ([]write, error) {
	writes, errs := make([]write, len(accounts)), make([]error, len(accounts))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(accounts)) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(accounts) && t.ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				writes[i], errs[i] = t.prepareOne(accounts[i])
			}
		})
	}
	workers.Wait()
	if err := cmp.Or(context.Cause(t.ctx), errors.Join(errs...)); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(writes, func(w write) bool { return w.data == nil }), nil
}

// prepareOne returns a write without data if there is nothing to write.
func (t *transfer) prepareOne(a *account.Account) (write, error) {
	if !a.HasPassword() {
		return write{}, fmt.Errorf("account %q has no password", a.Name)
	}
	e, exists := t.was[a.Name]
	w := write{name: a.Name, ifVersion: e.Version} // 0 is MustNotExist
	var is []byte
	if exists {
		if was, err := account.ParseJSON(e.Name, e.Data); err == nil && was.HasPassword() {
			a = a.KeepHash(was)
			if is, err = was.StoredJSON(); err != nil {
				return write{}, err
			}
		}
	}
	data, err := a.StoredJSON()
	if err == nil {
		err = checkRecord(a.Name, data)
	}
	if err != nil || bytes.Equal(data, is) {
		return write{}, err
	}
	w.data = data
	return w, nil
}

// deletions are of what is in Redis and not among accounts.
func (t *transfer) deletions(accounts []*account.Account) []write {
	stay := make(map[string]struct{}, len(accounts))
	for _, a := range accounts {
		stay[a.Name] = struct{}{}
	}
	var writes []write
	for name, e := range t.was {
		if _, ok := stay[name]; !ok {
			writes = append(writes, write{name: name, ifVersion: e.Version})
		}
	}
	return writes
}

// Export writes all accounts to w as an accounts file, in the order of their names, with
// their passwords as hashes: it is as secret as they are. A record that is not valid is
// left out, and is part of the error.
func Export(ctx context.Context, s *Store, w io.Writer) error {
	c, err := s.changes(ctx, point{})
	if err != nil {
		return fmt.Errorf("redisaccounts: export: %w", err)
	}
	var file bytes.Buffer
	var bad []error
	slices.SortFunc(c.entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	for _, e := range c.entries {
		if e.Data == nil {
			continue
		}
		item, err := fileItem(e)
		switch {
		case err == nil:
			file.Write(item)
		case len(bad) < maxNamed:
			bad = append(bad, fmt.Errorf("redisaccounts: export: account %q: %w", e.Name, err))
		}
	}
	head := "accounts:\n"
	if file.Len() == 0 {
		head = "accounts: []\n"
	}
	for _, text := range [][]byte{[]byte(head), file.Bytes()} {
		if _, err := w.Write(text); err != nil {
			return fmt.Errorf("redisaccounts: export: %w", err)
		}
	}
	return errors.Join(bad...)
}

// fileItem returns an account as an element of the file's list. A value in JSON is one in
// YAML, too.
func fileItem(e Entry) ([]byte, error) {
	a, err := account.ParseJSON(e.Name, e.Data)
	if err != nil {
		return nil, err
	}
	if !a.HasPassword() {
		return nil, errors.New("it has no password")
	}
	data, err := a.StoredJSON()
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	if _, err := decoder.Token(); err != nil { // {
		return nil, err
	}
	var item bytes.Buffer
	lead := "  - "
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, err
		}
		// What JSON writes as 1e-7 is a text in YAML.
		if number, err := strconv.ParseFloat(string(value), 64); err == nil && bytes.ContainsAny(value, "eE") {
			value = strconv.AppendFloat(nil, number, 'f', -1, 64)
		}
		fmt.Fprintf(&item, "%s%s: %s\n", lead, key, value)
		lead = "    "
	}
	return item.Bytes(), nil
}
