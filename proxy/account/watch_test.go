package account

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// watched is a Store that is being watched in a synctest bubble, once a second.
type watched struct {
	*Store
	t    *testing.T
	path string

	mu      sync.Mutex // guards reports
	reports []watchReport
}

func (w *watched) report(c Change, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports = append(w.reports, watchReport{c, err})
}

type watchReport struct {
	change Change
	err    error
}

// watch runs test with a watched Store of a file that holds alice.
func watch(t *testing.T, path string, test func(w *watched)) {
	write(t, path, yamlOf("name: alice, password: x"))
	synctest.Test(t, func(t *testing.T) {
		w := &watched{Store: newStore(t, StoreConfig{File: path}), t: t, path: path}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.Watch(ctx, time.Second, w.report)
		}()
		test(w)
		cancel()
		<-done
	})
}

// ticks lets n intervals pass and returns what was reported in them.
func (w *watched) ticks(n int) []watchReport {
	time.Sleep(time.Duration(n)*time.Second + time.Millisecond)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	reports := w.reports
	w.reports = nil
	return reports
}

// wantQuiet checks that nothing is reported for some intervals.
func (w *watched) wantQuiet() {
	w.t.Helper()
	if reports := w.ticks(5); len(reports) != 0 {
		w.t.Fatalf("unexpected reports: %+v", reports)
	}
}

// wantOne checks that one reload is reported, and returns it.
func (w *watched) wantOne() watchReport {
	w.t.Helper()
	reports := w.ticks(5)
	if len(reports) != 1 {
		w.t.Fatalf("reports are %+v, want one", reports)
	}
	return reports[0]
}

// age makes the file's time another one than it was, however coarse its clock.
func (w *watched) age(by time.Duration) {
	w.t.Helper()
	info, err := os.Stat(w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chtimes(w.path, time.Time{}, info.ModTime().Add(by)); err != nil {
		w.t.Fatal(err)
	}
}

func TestWatchRename(t *testing.T) {
	watch(t, filepath.Join(t.TempDir(), "a.yaml"), func(w *watched) {
		w.wantQuiet()
		write(t, w.path, yamlOf("name: alice, password: x", "name: bob, password: y"))
		if r := w.wantOne(); r.err != nil || r.change.Added != 1 {
			t.Errorf("report is %+v", r)
		}
		mustAuthenticate(t, w.Store, "bob", "y")
		w.wantQuiet()
	})
}

func TestWatchBadFileIsReportedOnce(t *testing.T) {
	watch(t, filepath.Join(t.TempDir(), "a.yaml"), func(w *watched) {
		write(t, w.path, "accounts: nonsense\n")
		if r := w.wantOne(); r.err == nil || !strings.Contains(r.err.Error(), w.path+":1:11:") {
			t.Errorf("report is %+v", r)
		}
		w.wantQuiet()
		mustAuthenticate(t, w.Store, "alice", "x")
		write(t, w.path, yamlOf("name: bob, password: y"))
		if r := w.wantOne(); r.err != nil || r.change.Added != 1 || r.change.Removed != 1 {
			t.Errorf("report is %+v", r)
		}
	})
}

func TestWatchFileInPlace(t *testing.T) {
	watch(t, filepath.Join(t.TempDir(), "a.yaml"), func(w *watched) {
		f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}()
		// A writer that takes its time: at no tick is the file as it was.
		for _, piece := range []string{"- {name: bob,", " password: y}\n- {name: carol,", " password: z}\n", "# done\n"} {
			if _, err := f.WriteString(piece); err != nil {
				t.Fatal(err)
			}
			w.age(time.Minute)
			if reports := w.ticks(1); len(reports) != 0 {
				t.Fatalf("a file that is being written was reported: %+v", reports)
			}
		}
		if r := w.wantOne(); r.err != nil || r.change.Added != 2 {
			t.Errorf("report is %+v", r)
		}
	})
}

func TestWatchMissingFile(t *testing.T) {
	watch(t, filepath.Join(t.TempDir(), "a.yaml"), func(w *watched) {
		if err := os.Rename(w.path, w.path+".old"); err != nil {
			t.Fatal(err)
		}
		if reports := w.ticks(1); len(reports) != 0 {
			t.Fatalf("a file missing for a moment was reported: %+v", reports)
		}
		write(t, w.path, yamlOf("name: alice, password: x", "name: bob, password: y"))
		if r := w.wantOne(); r.err != nil || r.change.Added != 1 {
			t.Errorf("report is %+v", r)
		}
		if err := os.Remove(w.path); err != nil {
			t.Fatal(err)
		}
		if r := w.wantOne(); !errors.Is(r.err, fs.ErrNotExist) {
			t.Errorf("report is %+v", r)
		}
		w.wantQuiet()
		mustAuthenticate(t, w.Store, "bob", "y")
	})
}

// Kubernetes mounts a ConfigMap as file -> ..data/file with ..data -> ..version,
// and changes it by renaming a new ..data over the old one.
func TestWatchConfigMap(t *testing.T) {
	dir := t.TempDir()
	version := func(name, text string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "a.yaml"), text)
		if err := os.Symlink(name, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", "accounts: []\n")
	path := filepath.Join(dir, "a.yaml")
	if err := os.Symlink(filepath.Join("..data", "a.yaml"), path); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, StoreConfig{File: path})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		reports := make(chan watchReport, 10)
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Watch(ctx, 0, func(c Change, err error) { reports <- watchReport{c, err} })
		}()
		version("..2", yamlOf("name: bob, password: y"))
		if r := <-reports; r.err != nil || r.change.Added != 1 {
			t.Errorf("report is %+v", r)
		}
		cancel()
		<-done
	})
	mustAuthenticate(t, s, "bob", "y")
}

func TestWatchLeavesOthersReloadsAlone(t *testing.T) {
	watch(t, filepath.Join(t.TempDir(), "a.yaml"), func(w *watched) {
		write(t, w.path, yamlOf("name: bob, password: y"))
		if _, err := w.Reload(); err != nil { // as on SIGHUP
			t.Fatal(err)
		}
		w.wantQuiet()
		write(t, w.path, "nonsense")
		if _, err := w.Reload(); err == nil {
			t.Error("nonsense was loaded")
		}
		w.wantQuiet()
	})
}

func TestWatchWithoutAFile(t *testing.T) {
	s := newStore(t, StoreConfig{List: []*Account{plain("a", "x")}})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		s.Watch(ctx, time.Second, func(Change, error) { t.Error("something was reported") })
		if ctx.Err() == nil {
			t.Error("Watch returned before its context ended")
		}
	})
	if change, err := s.Reload(); err != nil || change.Added+change.Removed+change.Modified != 0 {
		t.Errorf("Reload without a file is %+v, %v", change, err)
	}
}
