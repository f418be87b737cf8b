package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"maskrelay/masking"
	"maskrelay/proxy/usage"
)

// bookkeeper is a Server that can book records and nothing else.
func bookkeeper(out io.Writer) *Server {
	return &Server{
		log: zerolog.New(out).Level(zerolog.InfoLevel), metrics: newMetrics(usage.NewMeter()), replies: newReplies(masking.Brand("Relay")),
		idPrefix: "abc-", config: Config{LogTargets: true},
	}
}

func sampleRecord() record {
	return record{
		id: 35 * 36, account: "customer7391", client: netip.MustParseAddr("198.51.100.7"), listener: "[::]:8080",
		method: "CONNECT", target: "shop.example:443", upstream: "gateway", outcome: OK, status: 200, sent: 517,
		received: 123456, connect: 1234 * time.Microsecond, duration: 61_500 * time.Millisecond,
	}
}

func TestRecordLine(t *testing.T) {
	book := &logBook{}
	s := bookkeeper(book)
	r := sampleRecord()
	s.book(&r)
	const want = `{"level":"info","id":"abc-z0","account":"customer7391","client":"198.51.100.7","listener":"[::]:8080",` +
		`"method":"CONNECT","target":"shop.example:443","upstream":"gateway","outcome":"ok","status":200,"sent":517,` +
		`"received":123456,"connect_ms":1.234,"duration_ms":61500,"message":"exchange"}` + "\n"
	if got := book.text(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestRecordOfAFailure(t *testing.T) {
	book := &logBook{}
	s := bookkeeper(book)
	s.log = s.log.Level(zerolog.DebugLevel)
	s.config.LogTargets = false
	s.book(&record{outcome: Internal, cause: "x\"y", account: "a\nb", err: errors.New("why")})
	lines := book.exchanges()
	if len(lines) != 1 || lines[0]["level"] != "error" || lines[0]["cause"] != `x"y` || lines[0]["account"] != "a\nb" ||
		lines[0]["client"] != "" {
		t.Errorf("got %v", lines)
	}
	if _, ok := lines[0]["target"]; ok {
		t.Error("a target is logged though none is wanted")
	}
	if len(book.lines) != 2 {
		t.Errorf("%d lines, want the exchange and its cause", len(book.lines))
	}
}

func TestAppendMilliseconds(t *testing.T) {
	for us := int64(0); us < 12_345_678; us += 1 + us/7 {
		d := time.Duration(us) * time.Microsecond
		want := strconv.FormatFloat(float64(us)/1000, 'f', -1, 64)
		got := string(appendMilliseconds(nil, d))
		if got != want || !json.Valid([]byte(got)) {
			t.Fatalf("%v is %s, want %s", d, got, want)
		}
	}
	if got := string(appendMilliseconds(nil, -time.Second)); got != "0" {
		t.Errorf("a clock that ran backwards is %s, want 0", got)
	}
}

// Every outcome has a counter from the start, and a reply or an intended silence.
func TestOutcomesAreComplete(t *testing.T) {
	m := newMetrics(usage.NewMeter())
	seen := map[Outcome]bool{}
	for _, o := range outcomes {
		if seen[o] || m.outcomes[o] == nil {
			t.Errorf("%s is there twice or has no counter", o)
		}
		seen[o] = true
	}
	for o := range statusOf {
		if !seen[o] {
			t.Errorf("%s is missing", o)
		}
	}
	for _, o := range endings {
		if !seen[o] {
			t.Errorf("%s is missing", o)
		}
	}
	m.ended("something else") // is counted all the same
	if _, err := m.exchanges.GetMetricWithLabelValues("something else"); err != nil {
		t.Error(fmt.Errorf("no series: %w", err))
	}
}

func BenchmarkBook(b *testing.B) {
	s := bookkeeper(io.Discard)
	s.log = s.log.With().Timestamp().Logger()
	r := sampleRecord()
	b.ReportAllocs()
	for b.Loop() {
		s.book(&r)
	}
}

// A method that somebody has invented is logged by its beginning.
func TestLongMethodIsClipped(t *testing.T) {
	for _, method := range []string{"", "GET", strings.Repeat("M", maxMethod), strings.Repeat("M", 30<<10)} {
		if got := clipped(method); len(got) > 32 || !strings.HasPrefix(method, got) || len(method) <= 32 && got != method {
			t.Errorf("of %d bytes: %q", len(method), got)
		}
	}
}
