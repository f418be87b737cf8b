package usage_test

import (
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"maskrelay/proxy/usage"
	"maskrelay/proxy/usage/usagetest"
)

// clock is set by a test and read by a ledger.
type clock struct{ atomic.Pointer[time.Time] }

func (c *clock) now() time.Time  { return *c.Load() }
func (c *clock) set(t time.Time) { c.Store(&t) }
func TestMemory(t *testing.T)    { usagetest.Run(t, memory) }
func TestFile(t *testing.T)      { usagetest.Run(t, file) }

func memory(*testing.T) usagetest.Subject {
	var c clock
	return usagetest.Subject{Ledger: usage.NewMemoryAt(c.now), SetNow: c.set}
}

func file(t *testing.T) usagetest.Subject {
	var c clock
	l, err := usage.OpenFileAt(filepath.Join(t.TempDir(), "usage.db"), c.now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return usagetest.Subject{Ledger: l, SetNow: c.set}
}
