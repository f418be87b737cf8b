package redisaccounts

import (
	"testing"

	"maskrelay/integration/lab"
	"maskrelay/proxy/account"
)

// In a cluster all of it lies in one slot, which is what the scripts and the snapshots need.
func TestCluster(t *testing.T) {
	t.Parallel()
	cluster := lab.StartRedisCluster(t)
	s := New(opened(t, cluster))
	w, _ := relay(t, cluster, account.StoreConfig{})
	fill(t, s, 600)
	eventually(t, "all accounts", func() bool { return w.Len() == 600 })
	version := mustPut(t, s, "a00007", 77)
	if _, err := s.Put(t.Context(), "a00007", record("a00007", 78), version); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "a00008", AnyVersion); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the changes", func() bool { return w.Len() == 599 && w.serves("a00007", 78) })
	if got := imported(t, s, "accounts: []\n", true); got.removed != 599 {
		t.Errorf("%+v", got)
	}
	eventually(t, "the end of all", func() bool { return w.Len() == 0 })
	if _, err := w.Status(); err != nil {
		t.Errorf("status: %v", err)
	}
}
