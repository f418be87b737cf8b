package main

import (
	"strings"
	"testing"
	"time"

	"maskrelay/proxy/usage"
)

func TestHumanSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.00 KB", 1234: "1.23 KB", 9994: "9.99 KB", 9995: "10.0 KB", 99_949: "99.9 KB", 99_951: "100 KB",
		999_499: "999 KB", 999_500: "1.00 MB", 50_000_000_000: "50.0 GB", 1_500_000_000_000: "1.50 TB", 1<<63 - 1: "9.22 EB",
	} {
		if got := humanSize(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 11, 21, 8, 30, 0, 0, time.UTC)
	for s, want := range map[string]string{
		"": "2026-11-01T00:00:00Z", "24h": "2026-11-20T08:30:00Z", "7d": "2026-11-14T08:30:00Z", "90m": "2026-11-21T07:00:00Z",
		"2026-10-31": "2026-10-31T00:00:00Z", "2026-11-21T09:00:00+01:00": "2026-11-21T08:00:00Z",
	} {
		if got, err := parseSince(s, now); err != nil || got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q is %v, %v, want %s", s, got, err, want)
		}
	}
	for _, s := range []string{"0d", "-1d", "-5h", "0s", "1.5d", "d", "7D", "99999999999d", "36501d", "2026-11-22", "2026-13-01", "2026-11-01 00:00", "yesterday"} {
		if got, err := parseSince(s, now); err == nil {
			t.Errorf("%q is taken as %v", s, got)
		}
	}
}

// TestUsageTableOfOddities: all time, nothing at all, sums beyond 64 bits, and names that would steer a terminal.
func TestUsageTableOfOddities(t *testing.T) {
	since := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	q := usageQuestion{usage.Query{Since: since}, "table"}
	print := func(rows ...usageRow) string {
		var out strings.Builder
		if err := writeUsage(&out, q, rows); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	want := "ACCOUNT     SENT  RECEIVED  TOGETHER  CONNECTIONS\n(0 in all)   0 B       0 B       0 B            0\n\nNothing was moved since 2026-11-01T00:00:00Z.\n"
	if got := print(); got != want {
		t.Errorf("nothing: %s", got)
	}
	got := print(usageRow{Account: "ümlaut", Sent: 1<<63 - 1, To: since}, usageRow{Account: "a\x1b[2J\n", Sent: 1, Received: 1, To: since})
	want = "ACCOUNT        SENT  RECEIVED  TOGETHER  CONNECTIONS\n" +
		"a\\x1b[2J\\n      1 B       1 B       2 B            0\n" +
		"ümlaut      9.22 EB       0 B   9.22 EB            0\n" +
		"(2 in all)  9.22 EB       1 B   9.22 EB            0\n\nFrom the beginning to 2026-11-01T00:00:00Z.\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	q.format = "json"
	if got := print(); !strings.Contains(got, `"usage": []`) {
		t.Errorf("nothing as JSON: %s", got)
	}
	if err := writeUsage(brokenWriter{}, q, nil); err == nil {
		t.Error("a broken output is no error")
	}
}
