package vendor

import (
	"strconv"
	"time"
)

// lifetime is how a vendor writes and bounds a session's lifetime.
type lifetime struct {
	units    []unit
	min, max time.Duration // of all units
}

type unit struct {
	length   time.Duration
	min, max int64
	suffix   string
}

// plainLifetime is for vendors of whom nothing is known: seconds.
var plainLifetime = lifetime{
	units: []unit{{length: time.Second, min: 1, max: int64(maxTTL / time.Second)}},
	min:   time.Second, max: maxTTL,
}

var unitLengths = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}

// find returns the first unit in which d is a whole number within its bounds.
func (l *lifetime) find(d time.Duration) (u *unit, n int64) {
	for i := range l.units {
		u := &l.units[i]
		if n := int64(d / u.length); d%u.length == 0 && u.min <= n && n <= u.max {
			return u, n
		}
	}
	return nil, 0
}

// append writes d, which fits.
func (l *lifetime) append(dst []byte, d time.Duration) []byte {
	u, n := l.find(d)
	if u == nil {
		return dst
	}
	return append(strconv.AppendInt(dst, n, 10), u.suffix...)
}

func appendUnits(dst []byte, d, unit time.Duration) []byte {
	return strconv.AppendInt(dst, int64(d/unit), 10)
}
