package redislimit

import (
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// Right after a refusal nothing counts as free: what a relay gives back is another's, and it keeps no idle slots itself for long.
func TestNothingIsFreeRightAfterARefusal(t *testing.T) {
	const slots = 200
	c := clocked{t: t, admin: admin(t, lab.StartRedis(t))}
	c.setClock(time.Hour)
	script := onTestClock(leaseSource)
	ask := func(node string, sequence, inUse, waiting int) (granted, free int64) {
		t.Helper()
		answer, err := script.Run(t.Context(), c.admin, []string{"k"}, node, 30_000, sequence, slots, inUse, inUse, 10, 0, 0, waiting).Int64Slice()
		if err != nil {
			t.Fatal(err)
		}
		return answer[0], answer[1]
	}
	if granted, _ := ask("rich", 1, 0, slots); granted != slots {
		t.Fatalf("%d slots were leased, want all %d", granted, slots)
	}
	if granted, _ := ask("poor", 1, 0, 1); granted != 0 {
		t.Fatalf("%d slots were leased beyond the cap", granted)
	}
	if _, free := ask("rich", 2, slots/2, 0); free != 0 {
		t.Errorf("%d slots count as free right after a refusal", free)
	}
	c.setClock(time.Hour + 3*time.Second)
	if _, free := ask("rich", 3, slots/2, 0); free != slots/2 {
		t.Errorf("%d slots count as free when nobody asked for a while, want %d", free, slots/2)
	}
}
