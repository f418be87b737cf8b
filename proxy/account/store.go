package account

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// maxFile bounds the accounts file: a million accounts and more.
const maxFile = 128 << 20

// StoreConfig says where a Store's accounts come from.
type StoreConfig struct {
	// File is the path of the accounts file; empty is none.
	File string
	// List are further accounts, which no reload changes. A name that is in
	// both sources is an error.
	List []*Account
	// Source has yet more accounts and tells of their changes; nil is none. An account
	// of it whose name the file or the list has, too, is not served, and neither is one
	// that is not valid: [Store.Watch] tells it, and the others live on.
	Source Source
	// Check is asked about each account that is valid by itself, before it is taken; nil
	// = none is. What it says is a problem of the account, as any other is. Each of the
	// errors that it may join is one line that begins with the key that it speaks of, as
	// in `pool "oxi": no gateway is in it`. It must be quick and safe for concurrent
	// use, must say the same at any time, and must not call the Store.
	Check func(*Account) error
	// Now is the clock by which accounts expire; nil is time.Now.
	Now func() time.Time
	// BcryptWorkers is how many bcrypt hashes are verified at once; 0 is half of
	// GOMAXPROCS, at least 1.
	BcryptWorkers int
}

// Store serves the accounts of all sources as one snapshot. Readers take no lock
// and see one snapshot at a time. Safe for concurrent use.
type Store struct {
	file    string
	fixed   []*Account
	check   func(*Account) error // nil = none
	now     func() time.Time
	seed    maphash.Seed // of the choice of decoys
	flights *flights[bool]
	digester
	// compare is bcrypt.CompareHashAndPassword, but for tests that count.
	compare func(hash, password []byte) error

	current atomic.Pointer[snapshot]
	// unread reports that the source has not answered since the Store was made: a name
	// that is nowhere else may be one of its accounts.
	unread atomic.Bool
	status atomic.Pointer[status]

	reloadMu sync.Mutex // one reload at a time; guards what follows
	seen     fileMark   // of the file as the last load found it
	fileErr  error      // of the last load
	feed     *feed      // of the source; nil without one

	expiryMu sync.Mutex // guards what follows and the swap of current
	// expiredTo is up to when Expired has told.
	expiredTo time.Time
	// told are names that a Change told since, so that Expired need not.
	told map[string]struct{}
}

// status is the outcome of the last load.
type status struct {
	loaded time.Time
	err    error
}

// NewStore reads the file, if there is one, and returns a Store that serves it
// and the list. Problems of the file are those of [ParseFile].
func NewStore(config StoreConfig) (*Store, error) {
	workers := config.BcryptWorkers
	if workers <= 0 {
		workers = max(1, runtime.GOMAXPROCS(0)/2)
	}
	s := &Store{
		file:    config.File,
		fixed:   config.List,
		check:   config.Check,
		now:     config.Now,
		seed:    maphash.MakeSeed(),
		flights: newFlights[bool](workers),
		compare: bcrypt.CompareHashAndPassword,
		told:    make(map[string]struct{}),
	}
	if s.now == nil {
		s.now = time.Now
	}
	_, _ = rand.Read(s.key[:]) // never fails: crypto/rand.Read ends the program instead
	s.hashers.New = s.newHasher
	for _, a := range config.List {
		if a == nil || a.password == nil {
			return nil, errors.New("account: the list has an account that was not parsed")
		}
	}
	if err := inspectList(config.Check, config.List); err != nil {
		return nil, err
	}
	if config.Source != nil {
		s.feed = newFeed(config.Source, config.Check)
		s.unread.Store(!s.first())
	}
	if _, err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Lookup returns the account of that name, and reports whether there is one. It
// verifies nothing.
func (s *Store) Lookup(name string) (*Account, bool) {
	r := s.current.Load().byName[name]
	if r == nil {
		return nil, false
	}
	return r.Account, true
}

// Starting reports that no account is known yet, and that the source, which may have some,
// has not answered since the Store was made.
func (s *Store) Starting() bool { return s.unread.Load() && s.Len() == 0 }

// Len returns the number of accounts.
func (s *Store) Len() int { return len(s.current.Load().list) }

// Range calls f for every account of one snapshot, the file's first and each
// source in its order, until f returns false.
func (s *Store) Range(f func(*Account) bool) {
	for _, r := range s.current.Load().list {
		if !f(r.Account) {
			return
		}
	}
}

// Status returns when accounts were last taken up, and what is refused now: the file as
// a whole, or records of the source, or that the source cannot be reached; nil is nothing.
func (s *Store) Status() (loaded time.Time, lastError error) {
	st := s.status.Load()
	return st.loaded, st.err
}

// Reload reads the file again and takes it up whole. On an error the accounts
// stay as they were, Status tells the error, and no connection need end. The
// caller owns ending the connections of [Change.Ended].
func (s *Store) Reload() (Change, error) {
	s.reloadMu.Lock()
	defer s.reloadMu.Unlock()
	old := s.current.Load()
	next, err := s.loadLocked(old)
	s.fileErr = err
	if err != nil {
		s.tellLocked(false)
		return Change{}, err
	}
	change := s.swap(old, next, func(now time.Time) Change { return old.changeTo(next, now) })
	s.tellLocked(true)
	return change, nil
}

// tellLocked makes what Status tells; loaded reports that accounts were taken up now.
func (s *Store) tellLocked(loaded bool) {
	next := status{err: s.fileErr}
	if next.err == nil && s.feed != nil {
		next.err = s.feed.trouble()
	}
	if was := s.status.Load(); loaded {
		next.loaded = s.now()
	} else if was != nil {
		next.loaded = was.loaded
	}
	s.status.Store(&next)
}

// loadLocked reads the file and makes the snapshot after old.
func (s *Store) loadLocked(old *snapshot) (*snapshot, error) {
	var accounts []*Account
	if s.file != "" {
		data, mark, err := readFile(s.file)
		s.seen = mark
		if err != nil {
			return nil, err
		}
		if accounts, err = parseFile(s.file, data, s.check); err != nil {
			return nil, err
		}
	}
	next, err := s.newSnapshot(append(accounts, s.fixed...), old)
	if err != nil {
		return nil, err
	}
	for i, r := range next.list {
		r.origin.Source = FromFile
		if i >= len(accounts) {
			r.origin.Source = FromEnvironment
		}
	}
	if s.feed != nil {
		next = s.feed.addTo(next, func(a *Account) *verifier { return s.verifierOf(a, old) })
	}
	return next, nil
}

// swap makes next the current snapshot, and returns what compare says, which is not
// asked without an old one. It is one step for Expired, so that a name which expires
// meanwhile is told by one of the two.
func (s *Store) swap(old, next *snapshot, compare func(now time.Time) Change) Change {
	s.expiryMu.Lock()
	defer s.expiryMu.Unlock()
	now := s.now()
	s.current.Store(next)
	if old == nil {
		s.expiredTo = now
		return Change{Added: len(next.list)}
	}
	change := compare(now)
	for name := range s.told {
		if r := next.byName[name]; r == nil || !r.Expired(now) {
			delete(s.told, name)
		}
	}
	for _, name := range change.Ended {
		if r := next.byName[name]; r != nil && r.Expired(now) {
			s.told[name] = struct{}{}
		}
	}
	return change
}

// Expired returns the names of accounts that expired since the last call, or
// since they were loaded before the first; each name once, and none that a
// [Change] has named for it. The caller owns ending their connections. It is
// cheap enough to be called once a second.
func (s *Store) Expired() []string {
	s.expiryMu.Lock()
	defer s.expiryMu.Unlock()
	now := s.now()
	if !now.After(s.expiredTo) {
		return nil // the clock was set back: what is told stays told
	}
	var names []string
	for _, r := range s.current.Load().expiredBetween(s.expiredTo, now) {
		if _, told := s.told[r.Name]; !told {
			names = append(names, r.Name)
		}
	}
	s.expiredTo = now
	clear(s.told)
	return names
}

// fileMark tells one state of a file from another without reading it. The zero
// mark is that of no file.
type fileMark struct {
	info fs.FileInfo
	err  error // why there is no info
}

// markFile follows symbolic links.
func markFile(path string) fileMark {
	info, err := os.Stat(path)
	if err != nil {
		return fileMark{err: withoutPath(err)}
	}
	return fileMark{info: info}
}

// withoutPath returns what an error of package os says besides the path, which
// our own begin with.
func withoutPath(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

func (m fileMark) equal(n fileMark) bool {
	if m.info == nil || n.info == nil {
		return m.info == nil && n.info == nil && fmt.Sprint(m.err) == fmt.Sprint(n.err)
	}
	return os.SameFile(m.info, n.info) && m.info.ModTime().Equal(n.info.ModTime()) &&
		m.info.Size() == n.info.Size() && m.info.Mode() == n.info.Mode()
}

// readFile reads a regular file, with the mark it had before and after. A file
// that changes on the way is an error: its beginning can be well-formed.
func readFile(path string) ([]byte, fileMark, error) {
	mark := markFile(path)
	switch {
	case mark.info == nil:
		return nil, mark, fmt.Errorf("%s: %w", path, mark.err)
	case !mark.info.Mode().IsRegular():
		return nil, mark, errors.New(path + ": not a regular file")
	case mark.info.Size() > maxFile:
		return nil, mark, fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, mark, fmt.Errorf("%s: %w", path, withoutPath(err))
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, mark, fmt.Errorf("%s: %w", path, withoutPath(err))
	}
	if after := markFile(path); !mark.equal(after) || int64(len(data)) != mark.info.Size() {
		return nil, mark, errors.New(path + ": changed while it was read")
	}
	return data, mark, nil
}
