package account

import (
	"errors"
	"testing"
)

func TestParseBandwidth(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int64
		err  error
	}{
		{"0", 0, nil},
		{"0MB", 0, nil},
		{"1000", 1000, nil},
		{"1000B", 1000, nil},
		{"1KB", 1000, nil},
		{"1kB", 1000, nil},
		{"10MB", 10_000_000, nil},
		{"1.5MB", 1_500_000, nil},
		{"0.5MB", 500_000, nil},
		{".5GB", 500_000_000, nil},
		{"1GB", 1_000_000_000, nil},
		{"1TB", 1_000_000_000_000, nil},
		{"1KiB", 1024, nil},
		{"10MiB", 10 << 20, nil},
		{"1.5GiB", 3 << 29, nil},
		{"0.5TiB", 1 << 39, nil},

		{"1", 0, errBandwidthSmall},
		{"10", 0, errBandwidthSmall},
		{"999", 0, errBandwidthSmall},
		{"0.5KB", 0, errBandwidthSmall},
		{"1TiB", 0, errBandwidthLarge},
		{"1000000000001", 0, errBandwidthLarge},
		{"9223372036854775807", 0, errBandwidthLarge},
		{"9000000TB", 0, errBandwidthLarge},

		{"", 0, errSize},
		{"MB", 0, errSize},
		{".", 0, errSize},
		{"1.2.3MB", 0, errSize},
		{"-1MB", 0, errSize},
		{"+1MB", 0, errSize},
		{"10Mb", 0, errSize},
		{"10mb", 0, errSize},
		{"10M", 0, errSize},
		{"10Mbit", 0, errSize},
		{"10 MB", 0, errSize},
		{" 10MB", 0, errSize},
		{"10MB/s", 0, errSize},
		{"1e6", 0, errSize},
		{"0x10MB", 0, errSize},
		{"010MB", 0, errSize},
		{"1_000", 0, errSize},
		{"NaN", 0, errSize},
		{"inf", 0, errSize},
		{"9223372036854775808TB", 0, errSize},
		{"99999999999999999999999999", 0, errSize},
	} {
		got, err := ParseBandwidth(c.in)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%q: %d, %v; want %d, %v", c.in, got, err, c.want, c.err)
		}
	}
}

func TestParseQuota(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int64
		err  error
	}{
		{"0", 0, nil},
		{"1000", 1000, nil},
		{"50GB", 50_000_000_000, nil},
		{"1.5TB", 1_500_000_000_000, nil},
		{"50GiB", 50 << 30, nil},
		{"1000000TB", 1_000_000_000_000_000_000, nil},
		{"50", 0, errQuotaSmall},
		{"999B", 0, errQuotaSmall},
		{"1000001TB", 0, errQuotaLarge},
		{"9223372036854775807", 0, errQuotaLarge},
		{"", 0, errSize},
		{"50Gb", 0, errSize},
		{"-1GB", 0, errSize},
	} {
		got, err := ParseQuota(c.in)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%q: %d, %v; want %d, %v", c.in, got, err, c.want, c.err)
		}
	}
}

// TestFormatSize: what is written is read as the same number.
func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 1000: "1KB", 1024: "1024B", 1500: "1500B", 10_000_000: "10MB", 2_500_000_000: "2500MB", 1_000_000_000_000: "1TB",
	} {
		got := FormatSize(n)
		if got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
		if back, err := ParseBandwidth(got); back != n || err != nil {
			t.Errorf("%s is read as %d, %v", got, back, err)
		}
	}
}
