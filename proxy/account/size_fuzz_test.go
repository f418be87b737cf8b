package account

import (
	"errors"
	"math/big"
	"strings"
	"testing"
)

// FuzzParseSize: what is taken is what exact arithmetic makes of it, within the bounds, and is read the same after it was written.
func FuzzParseSize(f *testing.F) {
	for _, seed := range []string{
		"0", "0MB", "1000", "1.5MB", ".5GB", "1.", ".", "50GiB", "1e3", "-1", "+1", "007", "0.1KB", "1000000TB", "9223372036854775807", "1kb", "1_000", "8.9EB",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseQuota(s)
		checkSize(t, s, n, err, minQuota, maxQuota)
		if _, general := parseSize(s); err != nil && general == nil && !errors.Is(err, errQuotaSmall) && !errors.Is(err, errQuotaLarge) {
			t.Fatalf("%q: %v", s, err)
		}
		n, err = ParseBandwidth(s)
		checkSize(t, s, n, err, minBandwidth, maxBandwidth)
	})
}

func checkSize(t *testing.T, s string, n int64, err error, low, high int64) {
	t.Helper()
	if err != nil {
		if n != 0 {
			t.Fatalf("%q: %d with %v", s, n, err)
		}
		return
	}
	if n != 0 && (n < low || n > high) {
		t.Fatalf("%q is %d", s, n)
	}
	number := strings.TrimRight(s, "BTGMKki")
	exact, ok := new(big.Rat).SetString(number)
	if !ok || strings.ContainsAny(number, "eE/_+-xX") {
		t.Fatalf("%q was taken as %d", s, n)
	}
	for _, u := range units {
		if u.name == s[len(number):] {
			exact.Mul(exact, new(big.Rat).SetInt64(u.bytes))
		}
	}
	// A fraction is worked out in floating point: 53 bits of it are right, and a fraction of a byte is dropped.
	slack := new(big.Rat).Mul(exact, big.NewRat(1, 1<<50))
	slack.Add(slack, big.NewRat(1, 1))
	if off := new(big.Rat).Sub(exact, new(big.Rat).SetInt64(n)); off.Abs(off).Cmp(slack) > 0 {
		t.Fatalf("%q is %d, off by %s", s, n, off.FloatString(3))
	}
	if again, err := parseSize(FormatSize(n)); err != nil || again != n {
		t.Fatalf("%d is written %q, which is %d, %v", n, FormatSize(n), again, err)
	}
}
