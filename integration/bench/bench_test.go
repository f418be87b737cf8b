//go:build linux

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// roleForwarder is a relay that checks nobody: it must not pass the canary as one that does.
const roleForwarder = "forwarder"

func TestMain(m *testing.M) {
	roles[roleForwarder] = runForwarder
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(code(play(role)))
	}
	goleak.VerifyTestMain(m)
}

// newBench returns a bench with generator and vendor running.
func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{options: &options{rounds: 1, cellTime: 100 * time.Millisecond}, isOurs: map[string]bool{}, results: results{}, began: time.Now()}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	if err := b.prepare(); err != nil {
		t.Fatal(err)
	}
	return b
}

// wantMetrics is what every peer of TestCells must have figures for.
var wantMetrics = []string{
	"rate64.cpu", "rate64.persec", "rate64.setup50", "rate64.setup99", "rate64.whole50", "rate512.persec", "rate512.whole99",
	"hold.fds", "hold.ping50", "hold.ping99", "pending.fds", "burst.persec", "bulk1down.gbps", "bulk1up.gbps", "bulk16down.cpu", "bulk16up.gbps",
}

func TestCells(t *testing.T) {
	b := newBench(t)
	peers := []*peer{
		{name: "direct", kind: kindDirect, most: 60},
		{name: "goproxy", kind: kindChain, most: 60, command: ownRelay(roleGoproxy)},
		{name: "go-splice", kind: kindChain, most: 60, cells: tunnelCells, command: ownRelay(roleSplice)},
	}
	b.cells = []string{cellRate, cellHold, cellPending, cellBurst, cellBulk, cellHTTP}
	if err := b.run(t.Context(), peers); err != nil {
		t.Fatal(err)
	}
	for _, note := range b.notes {
		if strings.Contains(note, ", round ") {
			t.Errorf("a cell failed: %s", note)
		}
	}
	for _, p := range peers {
		for _, metric := range wantMetrics {
			if v, ok := b.results.median(p.name, metric); !ok || v <= 0 {
				t.Errorf("%s: %s is %v, %v", p.name, metric, v, ok)
			}
		}
		if _, ok := b.results.median(p.name, "http.persec"); ok != p.fits(cellHTTP) {
			t.Errorf("%s: plain HTTP measured: %v", p.name, ok)
		}
	}
	// goproxy's pipes are pooled, and the collector may take one.
	for name, want := range map[string]float64{"direct": 1, "goproxy": 6} {
		if got, _ := b.results.median(name, "hold.fds"); math.Abs(got-want) > 0.2 {
			t.Errorf("%s: %v files a tunnel, want %v", name, got, want)
		}
	}
	b.raw = true
	out := b.report(peers)
	for _, want := range []string{"| go-splice | chain |", "## Plain HTTP", "## Every round", "rate64.cpu"} {
		if !strings.Contains(out, want) {
			t.Errorf("the report has no %q", want)
		}
	}
}

// Peers that do not do the job must not get figures.
func TestCanary(t *testing.T) {
	cases := []struct {
		name, role, want string
	}{
		{"checks nobody", roleForwarder, "canary"},
		{"ends at once", "no such role", "ended before it served"},
	}
	b := newBench(t)
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			p := &peer{name: tc.name, kind: kindChain, command: ownRelay(tc.role)}
			b.notes = nil
			if err := b.measure(p, cellRate); err != nil {
				t.Fatal(err)
			}
			if len(b.notes) != 1 || !strings.Contains(b.notes[0], tc.want) {
				t.Errorf("notes %q, want one with %q", b.notes, tc.want)
			}
			if len(b.results[tc.name]) > 0 {
				t.Errorf("it got figures: %v", b.results[tc.name])
			}
		})
	}
}

// runForwarder puts the vendor's login in for whoever comes.
func runForwarder() error {
	return (&spliceRelay{vendor: os.Getenv(vendorVariable)}).listen(os.Getenv(listenVariable))
}

func TestRoleThatDoesNotAnswerIsEnded(t *testing.T) {
	p, err := startProcess(exec.Command("sleep", "600"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &roleProcess{process: p, name: "sleeper", in: discardCloser{}, answers: make(chan answer), slack: time.Millisecond}
	if _, err := r.ask(order{Op: "wake"}); err == nil || r.running() {
		t.Errorf("error %v, running %v", err, r.running())
	}
}

type discardCloser struct{ io.Writer }

func (discardCloser) Write(p []byte) (int, error) { return len(p), nil }
func (discardCloser) Close() error                { return nil }

func TestOptions(t *testing.T) {
	cases := []struct {
		args, want string // want is a part of the error, or empty
	}{
		{"", ""},
		{"-peers maskrelay,direct -cells rate,hold -rounds 5 -cell-time 3s", ""},
		{"-maskrelay a=/x,b=/y;LOG_LEVEL=warn;!GOGC=100 -peers a,b", ""},
		{"-peers nobody", `-peers: unknown "nobody"`},
		{"-cells rate,nothing", `-cells: unknown "nothing"`},
		{"-rounds 0", "-rounds"},
		{"-cell-time 1h", "-cell-time"},
		{"-maskrelay a=", "-maskrelay"},
		{"-maskrelay a=/x,a=/y", `"a" twice`},
		{"-maskrelay direct=/x", `"direct" is another peer's name`},
		{"more", `unexpected "more"`},
	}
	for _, tc := range cases {
		t.Run(tc.args, func(t *testing.T) {
			_, err := parseOptions(strings.Fields(tc.args))
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func TestBuildsKeepTheirSettings(t *testing.T) {
	opt, err := parseOptions(strings.Fields("-maskrelay a=/x;LOG_LEVEL=warn;!GOGC=50 -cells http,rate -peers a"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{cellRate, cellHTTP}; !slices.Equal(opt.cells, want) {
		t.Errorf("cells %v, want %v", opt.cells, want)
	}
	cmd, err := relayPeer(opt.builds[0]).command(&site{listen: "127.0.0.1:1", vendor: "127.0.0.1:2"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"MASKRELAY_LOG_LEVEL=warn", "GOGC=50", "MASKRELAY_LISTEN=127.0.0.1:1"} {
		if !slices.Contains(cmd.Env, want) {
			t.Errorf("no %s in %q", want, cmd.Env)
		}
	}
	if cmd.Path != "/x" || strings.Contains(strings.Join(cmd.Args, " "), "password") {
		t.Errorf("command %q", cmd.Args)
	}
}

func TestResults(t *testing.T) {
	r := results{}
	for round, v := range []float64{10, 30, 20, 40} {
		r.add("a", "cpu", round, v)
		r.add("b", "cpu", round, v/2)
	}
	r.add("c", "cpu", 2, 5) // in the third round only
	if v, ok := r.median("a", "cpu"); v != 25 || !ok {
		t.Errorf("median %v, %v", v, ok)
	}
	if v, ok := r.ratio("a", "b", "cpu"); v != 2 || !ok {
		t.Errorf("ratio %v, %v", v, ok)
	}
	if v, ok := r.ratio("a", "c", "cpu"); v != 4 || !ok {
		t.Errorf("ratio over the common round %v, %v", v, ok)
	}
	if _, ok := r.ratio("a", "d", "cpu"); ok {
		t.Error("a ratio to nothing")
	}
}

// The best rival is neither maskrelay nor direct, and depends on which way is better.
func TestBest(t *testing.T) {
	b := &bench{isOurs: map[string]bool{"maskrelay": true}, results: results{}}
	var peers []*peer
	for _, p := range []struct {
		name, kind string
		value      float64
	}{{"maskrelay", kindChain, 6}, {"slow", kindChain, 2}, {"fast", kindLimit, 3}, {"direct", kindDirect, 9}} {
		b.results.add(p.name, "x", 1, p.value)
		peers = append(peers, &peer{name: p.name, kind: p.kind})
	}
	if got := b.best("x", peers, true).text("maskrelay"); got != "2.00" {
		t.Errorf("in times of the largest: %s", got)
	}
	if got := b.best("x", peers, false).text("maskrelay"); got != "3.00" {
		t.Errorf("in times of the smallest: %s", got)
	}
}

func TestLatency(t *testing.T) {
	var samples []int64
	for i := range int64(101) {
		samples = append(samples, (100-i)*1000)
	}
	if got := latencyOf(samples); got != (latency{P50: 50, P99: 99}) {
		t.Errorf("%+v", got)
	}
	if got := latencyOf(nil); got != (latency{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestResponseWhole(t *testing.T) {
	head := "HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n"
	cases := []struct {
		name, text string
		want       bool
		err        error
	}{
		{"part of a head", head[:20], false, nil},
		{"head alone", head, false, nil},
		{"part of the body", head + string(pageBody[1:]), false, nil},
		{"whole", head + string(pageBody), true, nil},
		{"small letters", strings.ToLower(head[:8]) + strings.ToLower(head[8:]) + string(pageBody), true, nil},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n" + string(pageBody) + "\r\n0\r\n\r\n", true, nil},
		{"chunked, not at its end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n" + string(pageBody), false, nil},
		{"refused", "HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", false, errRefused},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if got, err := responseWhole([]byte(tc.text)); got != tc.want || !errors.Is(err, tc.err) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

// The chart must be well-formed whatever the figures, and show each relay once a panel.
func TestChart(t *testing.T) {
	b := &bench{isOurs: map[string]bool{"a<b&c": true}, results: results{}}
	peers := []*peer{{name: "a<b&c", kind: kindChain}, {name: "other", kind: kindLimit}, {name: "huge", kind: kindChain}, {name: "small", kind: kindPass}, {name: "direct", kind: kindDirect}}
	for i, p := range peers {
		for _, pan := range panels[:5] {
			b.results.add(p.name, pan.metric, 1, []float64{0, 3, 1000, -1, 5}[i])
		}
	}
	svg := b.chart(peers)
	bars := 0
	for dec := xml.NewDecoder(bytes.NewReader(svg)); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in %s", err, svg)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "rect" {
			bars++
		}
	}
	if want := 5 * 4; bars != want {
		t.Errorf("%d bars, want %d", bars, want)
	}
	if n := bytes.Count(svg, []byte(`class="cut"`)); n != 2*5 {
		t.Errorf("%d cuts: the huge bar must say that it goes on", n)
	}
}

func TestScale(t *testing.T) {
	for _, tc := range []struct {
		values []float64
		want   float64
	}{{[]float64{1, 2, 3, 4}, 4}, {[]float64{1, 2, 3, 100}, 3}, {[]float64{1, 2, 100}, 100}, {[]float64{0}, 1e-9}} {
		t.Run(fmt.Sprint(tc.values), func(t *testing.T) {
			var bars []bar
			for _, v := range tc.values {
				bars = append(bars, bar{value: v})
			}
			if got := scale(bars); got != tc.want {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
}
