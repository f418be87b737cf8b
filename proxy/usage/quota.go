package usage

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// Period is the time that a quota is for.
type Period string

// The two periods. Any other, the empty one too, is taken as Lifetime.
const (
	Lifetime Period = "lifetime"
	Monthly  Period = "monthly" // a calendar month, UTC
)

// Quota is what an account may move in a Period, both ways together.
type Quota struct {
	Bytes  int64 // 0 or less = no quota
	Period Period
}

// Window names the time that the quota covers at a moment: "lifetime", or the month as "2026-11".
func (q Quota) Window(at time.Time) string {
	if q.Period == Monthly {
		return Months.Name(Months.Index(at))
	}
	return string(Lifetime)
}

// Mark returns the number of bytes from which percent of the quota are used.
func (q Quota) Mark(percent int64) int64 {
	// In two parts, because the product of both may not fit in 64 bits.
	mark := q.Bytes/100*percent + (q.Bytes%100*percent+99)/100
	return max(mark, 1)
}

// Crossings are the shares of a quota, in percent, that are told when they are reached.
var Crossings = [...]int64{80, 100}

// Event is one crossing of a quota. Its JSON is what a webhook gets, less the id.
type Event struct {
	Kind    string    `json:"event"` // "quota.80" or "quota.100"
	Account string    `json:"account"`
	Quota   int64     `json:"quota"`  // bytes
	Used    int64     `json:"used"`   // bytes in the period when it was crossed
	Period  string    `json:"period"` // "lifetime", or the month as "2026-11"
	At      time.Time `json:"time"`
}

// ID names the event: it is the same whenever the same Event is told.
func (e Event) ID() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d\x00%s\x00%d", e.Kind, e.Account, e.Quota, e.Period, e.At.UnixNano()))
	return hex.EncodeToString(sum[:16])
}
