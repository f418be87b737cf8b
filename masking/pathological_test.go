package masking

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// pathologicalTime is far more than the work below takes on the slowest machine; a search that
// begins anew at each byte, for each mark, needs hours.
const pathologicalTime = 20 * time.Second

// pathologicalMarks all but match, at every byte, in what almostMarked returns.
func pathologicalMarks() []string {
	marks := make([]string, 1000)
	for i := range marks {
		marks[i] = strings.Repeat("a", 1000) + fmt.Sprintf("b%d", i)
	}
	return marks
}

// almostMarked is text that is the beginning of every mark, again and again.
func almostMarked(size int) string { return strings.Repeat("a", size) }

// What is searched takes time for its length alone, whatever the operator has listed and
// whatever customers and vendors write.
func TestPathologicalListsAreLinear(t *testing.T) {
	t.Parallel()
	strip := make([]string, 1000)
	for i := range strip {
		strip[i] = strings.Repeat("a-", 50) + fmt.Sprintf("%d-*", i)
	}
	p := mustPolicy(t, PolicyConfig{Marks: pathologicalMarks(), StripRequest: strip, StripResponse: strip})
	head := func(line string, lines int) http.Header {
		h := http.Header{}
		for i := range lines {
			h[fmt.Sprintf("%s%d", line, i)] = []string{line}
		}
		return h
	}
	began := time.Now()
	for name, h := range map[string]http.Header{
		"almost marks":      head(almostMarked(30<<10), 8),
		"many lines":        head("A-A-A", 10_000),
		"almost prefixes":   head(strings.Repeat("a-", 15<<10), 8),
		"dashes":            head(strings.Repeat("-", 30<<10), 8),
		"options":           {"Connection": {strings.Repeat("a,", 15<<10)}, "Proxy-Connection": {strings.Repeat(",", 30<<10)}},
		"one of many lines": {"X": strings.Split(strings.Repeat("a,", 15<<10), ",")},
	} {
		for _, edit := range []func(http.Header){p.Request, p.UpgradeRequest, p.Response, p.UpgradeResponse, p.Trailer} {
			edit(h.Clone())
		}
		p.GatewayMade(502, h)
		p.GatewayMade(200, h)
		if took := time.Since(began); took > pathologicalTime {
			t.Fatalf("%s: %s", name, took)
		}
	}
	for name, text := range map[string]string{
		"almost marks":      almostMarked(1 << 20),
		"escaped":           strings.Repeat("%61", 1<<18),
		"escaped by halves": strings.Repeat("%%6", 1<<18),
		"base64":            strings.Repeat("YWFh", 1<<18),
	} {
		p.GatewayReason(text)
		names(p.ErrorMarks(true), []byte(text))
		p.For(text)
		s := NewScanner(name, p.Marks(), true)
		if _, err := s.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > pathologicalTime {
			t.Fatalf("%s: %s", name, took)
		}
	}
}
