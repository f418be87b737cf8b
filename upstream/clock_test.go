package upstream

import (
	"testing"
	"time"
	"unsafe"
)

// stepped is t as it would have been read had the wall clock been set back by d, whole
// seconds, before: time.Time has no way to say so.
func stepped(t *testing.T, at time.Time, d time.Duration) time.Time {
	t.Helper()
	back := at
	*(*uint64)(unsafe.Pointer(&back)) -= uint64(d/time.Second) << 30
	if back.Sub(at) != 0 || at.Round(0).Sub(back.Round(0)) != d {
		t.Skip("the layout of time.Time is another one")
	}
	return back
}

// A wall clock that is set back does not prolong what is waited for.
func TestClockIsSetBack(t *testing.T) {
	const back = time.Hour
	now := time.Now()
	after := func(d time.Duration) time.Time { return stepped(t, now.Add(d), back) }

	var ports lanePorts
	ports.rest(now)
	if ports.open(after(laneRest-1)) || !ports.open(after(laneRest)) {
		t.Error("a lane's rest follows the wall clock")
	}
	ep := &endpoint{family: new(family)}
	ep.report(false, now)
	if !ep.family.failing(after(addressCooldown-1)) || ep.family.failing(after(addressCooldown)) {
		t.Error("a family's failure follows the wall clock")
	}
	if ep.try(after(addressCooldown-1)) || !ep.try(after(addressCooldown)) {
		t.Error("an address's cooldown follows the wall clock")
	}
	if ep.family.tryLocked(after(addressCooldown-1)) || !ep.family.tryLocked(after(addressCooldown)) {
		t.Error("a family's cooldown follows the wall clock")
	}
	ep.report(true, after(time.Second))
	if ep.failing() || ep.family.failing(after(time.Second)) || !ep.family.proven(after(familyProven)) || ep.family.proven(after(time.Second+familyProven)) {
		t.Error("a family's success follows the wall clock")
	}
}
