package account

import "context"

// Where an account comes from: an [Origin]'s Source, or the name of a [Source].
const (
	FromFile        = "file"
	FromEnvironment = "environment"
	FromHook        = "hook"
)

// Source has accounts that others change. A [Store] calls Fetch one at a time.
type Source interface {
	// Name is what operators call it, such as "redis".
	Name() string
	// Fetch returns what changed since the Update with that mark, or everything for the
	// empty mark. It returns at ctx's end, or before. On an error nothing has changed.
	Fetch(ctx context.Context, mark string) (Update, error)
	// Nudges says when Fetch is worth a try at once. It is never closed.
	Nudges() <-chan struct{}
}

// Update is what a Source's Fetch returns.
type Update struct {
	// Mark is for the next Fetch.
	Mark string
	// Whole reports that there is no account that is not among Records.
	Whole   bool
	Records []Record
}

// Record is one account of a Source.
type Record struct {
	Name string
	// Version is never the same for two records of a name that are not the same.
	Version int64
	// Data is what [Account.StoredJSON] returned; nil means that there is no such account.
	Data []byte
}

// Origin is where an account of a Store comes from.
type Origin struct {
	// Source is [FromFile], [FromEnvironment] or the name of the Source.
	Source string
	// Version is the record's; 0 for one that has none.
	Version int64
}

// Origin returns where the account of that name comes from, and reports whether there is one.
func (s *Store) Origin(name string) (Origin, bool) {
	r := s.current.Load().byName[name]
	if r == nil {
		return Origin{}, false
	}
	return r.origin, true
}
