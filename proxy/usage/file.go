package usage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// The file's top buckets, all keyed by the account's name.
var (
	accountsBucket = []byte("accounts")
	seriesBuckets  = [grains][]byte{Hours: []byte("hours"), Days: []byte("days"), Months: []byte("months")}
)

// File is a Ledger in one bbolt file, for one process.
type File struct {
	db   *bbolt.DB
	path string
	now  func() time.Time
}

// OpenFile opens the ledger in the file, which is made if there is none, and reads it through.
// It fails at once, naming the file, when another process has it open and when it is damaged.
// A Book is on the disk when it returns.
func OpenFile(path string) (Ledger, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func openFile(path string) (f *File, err error) {
	f = &File{path: path, now: time.Now}
	var file *os.File
	options := &bbolt.Options{
		Timeout:      time.Millisecond, // one try, no wait
		FreelistType: bbolt.FreelistMapType,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			var err error
			file, err = os.OpenFile(name, flag, mode)
			return file, err
		},
	}
	err = f.guard(func() error {
		db, err := bbolt.Open(path, 0o600, options)
		f.db = db
		return err
	})
	if err == nil {
		err = f.guard(f.verify)
	}
	if err == nil {
		return f, nil
	}
	// A damaged file can make bbolt panic while it has the lock, which goes with the file.
	if f.db != nil {
		err = errors.Join(err, f.guard(f.db.Close))
	} else if file != nil {
		_ = file.Close() // bbolt may have closed it
	}
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf("usage: %s is in use by another process", path)
	}
	return nil, err
}

// guard calls f and makes an error that names the file of whatever goes wrong: bbolt panics on
// pages that it cannot read, and a file that is too short faults where it is mapped.
func (f *File) guard(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("usage: %s is damaged: %v", f.path, p)
		}
	}()
	err = do()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bbolterrors.ErrInvalid), errors.Is(err, bbolterrors.ErrChecksum), errors.Is(err, bbolterrors.ErrVersionMismatch):
		return fmt.Errorf("usage: %s is damaged, or no usage file: %w", f.path, err)
	}
	return fmt.Errorf("usage: %s: %w", f.path, err)
}

// verify makes the buckets and reads every value once.
func (f *File) verify() error {
	err := f.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range append([][]byte{accountsBucket}, seriesBuckets[:]...) {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return f.db.View(func(tx *bbolt.Tx) error {
		err := tx.Bucket(accountsBucket).ForEach(func(name, value []byte) error {
			_, err := decodeRecord(value)
			return about(name, err)
		})
		for _, bucket := range seriesBuckets {
			if err != nil {
				break
			}
			err = tx.Bucket(bucket).ForEach(func(name, value []byte) error {
				_, err := decodeSeries(value)
				return about(name, err)
			})
		}
		return err
	})
}

// about says whose record the error is in.
func about(name []byte, err error) error {
	if err != nil {
		return fmt.Errorf("account %q: %w", name, err)
	}
	return nil
}

// account is one account within a transaction.
type account struct {
	tx   *bbolt.Tx
	name []byte
	*record
}

// load reads the account, an empty one if there is none.
func load(tx *bbolt.Tx, name string) (account, error) {
	a := account{tx: tx, name: []byte(name), record: &record{}}
	value := tx.Bucket(accountsBucket).Get(a.name)
	if value == nil {
		return a, nil
	}
	var err error
	a.record, err = decodeRecord(value)
	return a, about(a.name, err)
}

func (a account) series(g Grain) (series, error) {
	value := a.tx.Bucket(seriesBuckets[g]).Get(a.name)
	if value == nil {
		return nil, nil
	}
	s, err := decodeSeries(value)
	return s, about(a.name, err)
}

func (a account) setSeries(g Grain, s series) error {
	return a.tx.Bucket(seriesBuckets[g]).Put(a.name, s.encode())
}

// Book implements Ledger, in one transaction: all entries or, with an error, none. The context
// is only looked at before, because writing to the disk cannot be called off.
func (f *File) Book(ctx context.Context, b Batch) ([]Total, error) {
	if err := errors.Join(ctx.Err(), b.Check()); err != nil {
		return nil, err
	}
	totals := make([]Total, 0, len(b.Entries))
	err := f.guard(func() error {
		return f.db.Update(func(tx *bbolt.Tx) error {
			for _, e := range b.Entries {
				t, err := bookIn(tx, b, e)
				if err != nil {
					return err
				}
				totals = append(totals, t)
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return totals, nil
}

func bookIn(tx *bbolt.Tx, b Batch, e Entry) (Total, error) {
	a, err := load(tx, e.Account)
	if err != nil {
		return Total{}, err
	}
	t, err := a.book(a, b.Node, b.At, e)
	if err != nil {
		return Total{}, err
	}
	return t, tx.Bucket(accountsBucket).Put(a.name, a.encode())
}

// Totals implements Ledger.
func (f *File) Totals(ctx context.Context, names []string) ([]Total, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	month := Months.Index(f.now())
	totals := make([]Total, 0, len(names))
	err := f.guard(func() error {
		return f.db.View(func(tx *bbolt.Tx) error {
			for _, name := range names {
				a, err := load(tx, name)
				if err != nil {
					return err
				}
				totals = append(totals, a.total(name, month))
			}
			return nil
		})
	})
	return totals, err
}

// Report implements Ledger.
func (f *File) Report(ctx context.Context, q Query) ([]Row, error) {
	now := f.now()
	g, first := Cover(q.Since, now)
	var rows []Row
	err := f.guard(func() error {
		return f.db.View(func(tx *bbolt.Tx) error {
			add := func(name string) error {
				row := Row{Account: name, From: g.Start(first), To: now.UTC()}
				a, err := load(tx, name)
				if err == nil {
					row.Sums, err = a.sum(a, g, first)
				}
				if err == nil && (row.Sums != (Sums{}) || name == q.Account) {
					rows = append(rows, row)
				}
				return errors.Join(err, ctx.Err())
			}
			if q.Account != "" {
				return add(q.Account)
			}
			return tx.Bucket(accountsBucket).ForEach(func(name, _ []byte) error { return add(string(name)) })
		})
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// Close implements Ledger; it waits for calls that are under way.
func (f *File) Close() error { return f.guard(f.db.Close) }
