package account

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// fetchTimeout bounds one look at the source, and firstTimeout the one that a
	// starting relay waits for.
	fetchTimeout = 10 * time.Second
	firstTimeout = 2 * time.Second
	// maxReasons bounds the reasons that are told before the source can be asked again.
	maxReasons = 4
)

// feed is what a Store knows of its Source. Unless it says
// otherwise, it is guarded by the Store's reloadMu.
type feed struct {
	source Source
	check  func(*Account) error // nil = none
	mark   string
	known  map[string]fed
	// refused are records that are not served, and why; fresh are those not told yet.
	refused, fresh map[string]error
	// down is why the source could not be asked the last time.
	down error
	// toldDown are the reasons that Watch's f knows of since the source could last be
	// asked, and toldTrouble reports that it knows of anything that is wrong. They are
	// watchSource's own.
	toldDown    map[string]struct{}
	toldTrouble bool
}

// fed is one record of the source.
type fed struct {
	version int64
	account *Account // as it was when it last was valid; nil if it never was
	valid   bool     // it still is
}

func newFeed(source Source, check func(*Account) error) *feed {
	return &feed{
		source: source, check: check, known: make(map[string]fed),
		refused: make(map[string]error), fresh: make(map[string]error),
		toldDown: make(map[string]struct{}),
	}
}

// first asks the source before there is any snapshot, and reports whether it answered.
// One that does not is asked again by Watch.
func (s *Store) first() bool {
	ctx, cancel := context.WithTimeout(context.Background(), firstTimeout)
	defer cancel()
	u, err := s.feed.source.Fetch(ctx, "")
	if s.feed.down = err; err == nil {
		s.feed.take(u)
	}
	return err == nil
}

// fetch asks the source what changed, takes it up and tells f.
func (s *Store) fetch(ctx context.Context, f func(Change, error)) {
	s.reloadMu.Lock()
	mark := s.feed.mark
	s.reloadMu.Unlock()
	asked, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	u, err := s.feed.source.Fetch(asked, mark)
	if ctx.Err() != nil {
		return
	}
	t := s.takeUp(u, err)
	cured := s.feed.toldTrouble && !t.trouble
	if t.change.any() || cured || len(s.feed.toldDown) > 0 && err == nil {
		f(t.change, nil)
	}
	if s.feed.newReason(err) {
		f(Change{}, fmt.Errorf("accounts in %s: %w", s.feed.source.Name(), err))
	}
	if t.refused != nil {
		f(Change{}, t.refused)
	}
	s.feed.toldTrouble = t.trouble
}

// newReason notes why the source cannot be asked, and reports whether that is to be told:
// each reason once, for one that comes after another, as an empty Redis after one that
// was away, can want something else to be done.
func (f *feed) newReason(err error) bool {
	if err == nil {
		clear(f.toldDown)
		return false
	}
	_, told := f.toldDown[err.Error()]
	if told || len(f.toldDown) >= maxReasons {
		return false
	}
	f.toldDown[err.Error()] = struct{}{}
	return true
}

// taken is what became of an Update.
type taken struct {
	change  Change
	refused error // records that are refused and were not before
	trouble bool  // something is wrong, be it told or not
}

// takeUp takes up what the source answered.
func (s *Store) takeUp(u Update, failed error) taken {
	s.reloadMu.Lock()
	defer s.reloadMu.Unlock()
	var t taken
	changed := false
	if s.feed.down = failed; failed == nil {
		t.change, changed = s.amendLocked(s.feed.take(u))
		s.unread.Store(false)
	}
	s.tellLocked(changed)
	t.refused, t.trouble = s.feed.tellFresh(), s.feed.down != nil || len(s.feed.refused) > 0
	return t
}

// amendLocked makes the snapshot in which the records of names are as the feed has them.
func (s *Store) amendLocked(names []string) (change Change, changed bool) {
	old := s.current.Load()
	var put []*record
	var gone []string
	for _, name := range names {
		was, is := old.byName[name], s.feed.known[name]
		switch {
		case was != nil && was.origin.Source != s.feed.source.Name():
			s.feed.shadow(name, was.origin.Source)
		case is.account != nil:
			put = append(put, s.feed.record(name, s.verifierOf(is.account, old)))
		case was != nil:
			gone = append(gone, name)
		}
	}
	if len(put)+len(gone) == 0 {
		return Change{}, false
	}
	next := old.amended(put, gone)
	return s.swap(old, next, func(now time.Time) Change { return old.changeOf(next, names, now) }), true
}

// any reports whether anything changed.
func (c Change) any() bool { return c.Added+c.Removed+c.Modified > 0 }

// record makes the record of one account of the source.
func (f *feed) record(name string, v *verifier) *record {
	is := f.known[name]
	return &record{Account: is.account, verifier: v, origin: Origin{f.source.Name(), is.version}}
}

// addTo returns snap with the source's accounts, but for those whose names it has.
func (f *feed) addTo(snap *snapshot, verifierOf func(*Account) *verifier) *snapshot {
	put := make([]*record, 0, len(f.known))
	for _, name := range slices.Sorted(maps.Keys(f.known)) {
		is := f.known[name]
		switch base := snap.byName[name]; {
		case base != nil:
			f.shadow(name, base.origin.Source)
		case is.account != nil:
			put = append(put, f.record(name, verifierOf(is.account)))
			if is.valid {
				delete(f.refused, name) // it may have been in the file until now
				delete(f.fresh, name)
			}
		}
	}
	if len(put) == 0 {
		return snap
	}
	return snap.amended(put, nil)
}

// take notes what the source said, and returns the names whose records are others now.
func (f *feed) take(u Update) []string {
	f.mark = u.Mark
	var names []string
	if u.Whole {
		names = f.forgetBut(u.Records)
	}
	fresh := slices.DeleteFunc(slices.Clone(u.Records), func(r Record) bool {
		is, ok := f.known[r.Name]
		return ok && r.Data != nil && is.version == r.Version
	})
	accounts, errs := f.parseRecords(fresh)
	for i, r := range fresh {
		names = append(names, r.Name)
		is := f.known[r.Name]
		delete(f.refused, r.Name)
		delete(f.fresh, r.Name)
		switch {
		case r.Data == nil:
			delete(f.known, r.Name)
		case errs[i] != nil:
			f.known[r.Name] = fed{version: r.Version, account: is.account}
			f.refuse(r.Name, errs[i])
		default:
			f.known[r.Name] = fed{version: r.Version, account: accounts[i], valid: true}
		}
	}
	slices.Sort(names)
	return slices.Compact(names) // of several records of a name the last one counts
}

// forgetBut forgets all accounts but those of records, and returns the names of the others.
func (f *feed) forgetBut(records []Record) []string {
	stay := make(map[string]struct{}, len(records))
	for _, r := range records {
		stay[r.Name] = struct{}{}
	}
	var names []string
	for name := range f.known {
		if _, ok := stay[name]; !ok {
			names = append(names, name)
			delete(f.known, name)
			delete(f.refused, name)
			delete(f.fresh, name)
		}
	}
	return names
}

// shadow refuses an account whose name another source has.
func (f *feed) shadow(name, by string) {
	if f.known[name].account == nil {
		return // there is none, or it is refused already
	}
	f.refuse(name, errors.New("the name is also in the "+placeOf(by)+", which goes first"))
}

func placeOf(source string) string {
	if source == FromFile {
		return "accounts file"
	}
	return "list of accounts in the environment"
}

func (f *feed) refuse(name string, why error) {
	why = fmt.Errorf("account %q in %s refused: %w", name, f.source.Name(), why)
	if was := f.refused[name]; was == nil || was.Error() != why.Error() {
		f.fresh[name] = why
	}
	f.refused[name] = why
}

// tellFresh returns what is refused and was not told before.
func (f *feed) tellFresh() error {
	err := joinByName(f.fresh)
	clear(f.fresh)
	return err
}

// trouble is all that is wrong with the source now.
func (f *feed) trouble() error {
	if f.down != nil {
		return fmt.Errorf("accounts in %s: %w", f.source.Name(), f.down)
	}
	return joinByName(f.refused)
}

// joinByName joins errors in the order of their names, up to maxProblems of them.
func joinByName(errs map[string]error) error {
	if len(errs) == 0 {
		return nil
	}
	var joined []error
	for i, name := range slices.Sorted(maps.Keys(errs)) {
		if i == maxProblems {
			joined = append(joined, fmt.Errorf("account: and %d more", len(errs)-i))
			break
		}
		joined = append(joined, errs[name])
	}
	return errors.Join(joined...)
}

// recordsPerPart is how many records one goroutine parses at a time.
const recordsPerPart = 256

// parseRecords parses records, on all processors if there are many.
func (f *feed) parseRecords(records []Record) ([]*Account, []error) {
	accounts, errs := make([]*Account, len(records)), make([]error, len(records))
	var next atomic.Int64
	work := func() {
		for {
			end := int(next.Add(recordsPerPart))
			for i := end - recordsPerPart; i < min(end, len(records)); i++ {
				if records[i].Data != nil {
					accounts[i], errs[i] = f.parseRecord(records[i])
				}
			}
			if end >= len(records) {
				return
			}
		}
	}
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), (len(records)+recordsPerPart-1)/recordsPerPart) {
		wg.Go(work)
	}
	wg.Wait()
	return accounts, errs
}

// parseRecord parses one record, which must have a password, and that as a hash: whoever
// reads the source must not learn what customers send.
func (f *feed) parseRecord(r Record) (*Account, error) {
	a, err := ParseJSON(r.Name, r.Data)
	switch {
	case err != nil:
		return nil, err
	case a.password == nil:
		return nil, errors.New("account: password: is missing")
	case !a.password.bcrypt:
		return nil, errors.New("account: password: must be a hash, such as hash-password makes")
	}
	if err := inspect(f.check, a); err != nil {
		return nil, err
	}
	return a, nil
}
