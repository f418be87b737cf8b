package account

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

const (
	// minBandwidth: below it not even a TLS handshake gets through in time, so a smaller number lacks its unit.
	minBandwidth = 1000
	// maxBandwidth is beyond any machine, and leaves room to calculate with.
	maxBandwidth = 1_000_000_000_000
	// minQuota: less than a page is a missing unit too.
	minQuota = 1000
	// maxQuota is beyond what a vendor sells, and leaves room to calculate with.
	maxQuota = 1_000_000_000_000_000_000
)

// units are the spellings of sizes. Small letters for M and b, which elsewhere mean bits, are none.
var units = []struct {
	name  string
	bytes int64
}{
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"kB", 1e3},
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"B", 1}, {"", 1},
}

var (
	errSize           = errors.New("is not a size; write 10MB (powers of 1000), 10MiB or a number of bytes")
	errBandwidthSmall = errors.New("is below 1KB a second, at which nothing useful passes; is the unit missing?")
	errBandwidthLarge = errors.New("is above 1TB a second")
	errQuotaSmall     = errors.New("is below 1KB, which one request uses up; is the unit missing?")
	errQuotaLarge     = errors.New("is above 1000000TB")
)

// ParseBandwidth reads bytes per second: a size such as 10MB, 1.5MB (powers of 1000), 10MiB or 1000000. 0 is allowed and
// means "none here"; anything else must be between 1KB and 1TB. The error goes on after the value and does not quote it.
func ParseBandwidth(s string) (int64, error) {
	n, err := parseSize(s)
	switch {
	case err != nil:
		return 0, err
	case n == 0:
		return 0, nil
	case n < minBandwidth:
		return 0, errBandwidthSmall
	case n > maxBandwidth:
		return 0, errBandwidthLarge
	}
	return n, nil
}

// ParseQuota reads a number of bytes: a size such as 50GB, 1.5TB (powers of 1000), 50GiB or 50000000000. 0 is allowed and
// means "none here"; anything else must be between 1KB and 1000000TB. The error goes on after the value and does not quote it.
func ParseQuota(s string) (int64, error) {
	n, err := parseSize(s)
	switch {
	case err != nil:
		return 0, err
	case n == 0:
		return 0, nil
	case n < minQuota:
		return 0, errQuotaSmall
	case n > maxQuota:
		return 0, errQuotaLarge
	}
	return n, nil
}

// parseSize reads a number with a unit. Fractions of a byte are dropped.
func parseSize(s string) (int64, error) {
	number := strings.TrimRight(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
	unit := s[len(number):]
	leadingZero := len(number) > 1 && number[0] == '0' && number[1] != '.'
	if number == "" || leadingZero || strings.Trim(number, "0123456789.") != "" {
		return 0, errSize
	}
	for _, u := range units {
		if u.name != unit {
			continue
		}
		if n, err := strconv.ParseInt(number, 10, 64); err == nil && n <= math.MaxInt64/u.bytes {
			return n * u.bytes, nil
		}
		f, err := strconv.ParseFloat(number, 64)
		f *= float64(u.bytes)
		if err != nil || f >= math.MaxInt64 {
			return 0, errSize
		}
		return int64(f), nil
	}
	return 0, errSize
}

// FormatSize writes n bytes with the largest decimal unit that it is a whole number of, as in 10MB or 1048576B; 0 is "0".
func FormatSize(n int64) string {
	if n == 0 {
		return "0"
	}
	for _, u := range units[:4] {
		if n%u.bytes == 0 {
			return fmt.Sprintf("%d%s", n/u.bytes, u.name)
		}
	}
	return fmt.Sprintf("%dB", n)
}
