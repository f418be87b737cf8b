package soak

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestStreamsNoticeEveryFault(t *testing.T) {
	streams := newStreams(1)
	const n = 3 * blockSize
	all := make([]byte, 0, n)
	for out := streams.of(7, upward); len(all) < n; {
		all = append(all, out.next(n-len(all))...)
	}
	flipped := append([]byte(nil), all...)
	flipped[blockSize+5] ^= 1
	cases := []struct {
		name string
		of   stream
		b    []byte
		good bool
	}{
		{"as sent", streams.of(7, upward), all, true},
		{"a prefix", streams.of(7, upward), all[:n-1], true},
		{"a bit", streams.of(7, upward), flipped, false},
		{"a byte lost", streams.of(7, upward), append(append([]byte(nil), all[:1<<20]...), all[1<<20+1:]...), false},
		{"64 KiB twice", streams.of(7, upward), append(append([]byte(nil), all[:1<<16]...), all...), false},
		{"the other direction", streams.of(7, downward), all[:100], false},
		{"the neighbour", streams.of(8, upward), all[:100], false},
		{"another run's", newStreams(2).of(7, upward), all[:100], false},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.of.Write(tc.b)
			if tc.good && (err != nil || got != len(tc.b)) || !tc.good && !errors.Is(err, errWrongByte) {
				t.Errorf("Write: %d, %v", got, err)
			}
		})
	}
}

func TestSpecNames(t *testing.T) {
	s := spec{ID: 1<<40 + 1, Up: 45678, Down: 9000, Mode: upFirst}
	if got, ok := parseSpec(s.host() + ":443"); !ok || got != s {
		t.Errorf("%s parses as %+v, %v", s.host(), got, ok)
	}
	for _, target := range []string{"", "shop.example:443", "s1-u2-d3.soak.example", "s01-u2-d3-both" + domain} {
		if got, ok := parseSpec(target); ok && got.host() != target {
			t.Errorf("%q parses as %+v", target, got)
		}
	}
}

// at is when the tunnels of TestVerdicts were.
var at = time.Unix(1_700_000_000, 0)

// good is the entry of a tunnel in which all went well.
func good(m mode) *entry {
	s := spec{ID: 1, Up: 100, Down: 200, Mode: m}
	return &entry{
		spec: s, customers: 1,
		customer: &report{Side: customerSide, Name: s.String(), Account: usual, Status: 200, Sent: 100, Got: 200, End: endOrderly, Start: at.UnixNano(), Stop: at.UnixNano()},
		vendors:  []report{{Side: steadyVendor, Name: s.String(), Sent: 200, Got: 100, End: endOrderly}},
		lines:    []logLine{{Message: "exchange", ID: "x", Upstream: steadyVendor, Outcome: "ok", Status: 200, Sent: 100, Received: 200, Came: at.UnixNano()}},
	}
}

// TestVerdicts shows that the ledger sees what a soak looks for.
func TestVerdicts(t *testing.T) {
	cases := []struct {
		name   string
		mode   mode
		change func(*entry)
		want   string // part of the verdict; empty = none
	}{
		{"good", both, func(*entry) {}, ""},
		{"a byte short for the customer", both, func(e *entry) { e.customer.Got-- }, "want [100 200"},
		{"a byte short for the vendor", upFirst, func(e *entry) { e.vendors[0].Got-- }, "want [100 200"},
		{"wrong bytes", both, func(e *entry) { e.customer.Bad = "wrong byte" }, "wrong byte"},
		{"more than was sent", both, func(e *entry) { e.vendors[0].Got++ }, "more arrived"},
		{"a reset that nobody sent", both, func(e *entry) { e.customer.End = endBroken }, "want [100 200"},
		{"time limit", both, func(e *entry) { e.vendors[0].End = endLate }, "time limit"},
		{"never logged", both, func(e *entry) { e.lines = nil }, "no exchange"},
		{"logged twice", both, func(e *entry) { e.lines = append(e.lines, e.lines[0]) }, "more than one"},
		{"no report", both, func(e *entry) { e.customer, e.customers = nil, 0 }, "0 reports"},
		{"a vendor that knows nothing", both, func(e *entry) { e.vendors = nil }, "says nothing"},
		{"booked wrongly", both, func(e *entry) { e.lines[0].Received = 199 }, "want [100 200"},
		{"a refusal too many in the log", both, func(e *entry) { e.lines = append(e.lines, logLine{Outcome: "auth_failed"}) }, "1 refused logins"},
		{"the vendor was killed", both, func(e *entry) { e.lines[0].Upstream = killedVendor; e.customer.Got = 7 }, ""},
		{"wrong bytes of a killed vendor", both, func(e *entry) { e.lines[0].Upstream = killedVendor; e.customer.Bad = "wrong byte" }, "wrong byte"},
		{"the other vendor was killed", both, func(e *entry) { e.customer.Got = 7 }, "want [100 200"},
		{"a reset", clientReset, func(e *entry) { e.vendors[0].End, e.lines[0].Outcome = endBroken, "client_reset" }, ""},
		{"a reset that became an end", clientReset, func(e *entry) { e.lines[0].Outcome = "client_reset" }, `arrived as "eof"`},
		{"a vendor's reset", vendorReset, func(e *entry) { e.customer.End, e.lines[0].Outcome = endBroken, "upstream_reset" }, ""},
		{"a vendor's reset that became an end", vendorReset, func(e *entry) { e.lines[0].Outcome = "upstream_reset" }, `arrived as "eof"`},
		{"a refusal", forbidden, func(e *entry) { e.refuse(502, "upstream_failed") }, ""},
		{"a refusal that moved bytes", forbidden, func(e *entry) { e.refuse(502, "upstream_failed"); e.lines[0].Sent = 1 }, "are booked"},
		{"a refusal as a success", forbidden, func(*entry) {}, "outcome ok"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			l := newLedger()
			l.kills = []time.Time{at.Add(time.Second)}
			e := good(tc.mode)
			tc.change(e)
			if got := l.verdictLocked(e); (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("verdict %q, want %q", got, tc.want)
			}
		})
	}
}

// refuse makes the entry one of a tunnel that was not opened.
func (e *entry) refuse(status int, outcome string) {
	e.customer.Status, e.lines[0].Status, e.lines[0].Outcome = status, status, outcome
	e.customer.Sent, e.customer.Got, e.lines[0].Sent, e.lines[0].Received = 0, 0, 0, 0
}

func TestLedgerReadsTheLog(t *testing.T) {
	line := func(id, level, outcome string) string {
		b, err := json.Marshal(map[string]any{"level": level, "message": "exchange", "id": id, "outcome": outcome, "target": "s1-u0-d0-both.soak.example:443"})
		if err != nil {
			t.Fatal(err)
		}
		return string(b) + "\n"
	}
	l := newLedger()
	text := line("a", "info", "ok") + line("b", "info", "ok") + line("b", "info", "ok") + line("c", "error", "internal") + "WARNING: DATA RACE\n"
	for i := range text {
		if _, err := l.Write([]byte(text[i : i+1])); err != nil {
			t.Fatal(err)
		}
	}
	outcomes, total := l.exchanges()
	if total != 4 || outcomes["ok"] != 3 || outcomes["internal"] != 1 || len(l.entries[1].lines) != 4 {
		t.Errorf("%d exchanges, %v, %d of the tunnel", total, outcomes, len(l.entries[1].lines))
	}
	for i, want := range []string{"was logged before", `"level":"error"`, "DATA RACE"} {
		if len(l.complaints) != 3 || !strings.Contains(l.complaints[i], want) {
			t.Fatalf("complaints %q", l.complaints)
		}
	}
}
