package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// sink is where a log goes: it takes whole calls, only while the gate is open, and fails as told.
type sink struct {
	gate chan struct{} // nothing is taken until it is closed; nil = open

	mu    sync.Mutex // guards what follows
	calls []string
	fail  func(b []byte) (n int, err error) // nil = all is taken
}

func (s *sink) Write(b []byte) (int, error) {
	if s.gate != nil {
		<-s.gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := len(b), error(nil)
	if s.fail != nil {
		n, err = s.fail(b)
	}
	if n > 0 {
		s.calls = append(s.calls, string(b[:n]))
	}
	return n, err
}

func (s *sink) failing(f func(b []byte) (int, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

func (s *sink) taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.calls...)
}

func (s *sink) text() string { return strings.Join(s.taken(), "") }

func warn(n uint64) []byte { return fmt.Appendf(nil, "dropped %d\n", n) }

func write(t testing.TB, w io.Writer, line string) {
	t.Helper()
	if n, err := io.WriteString(w, line); n != len(line) || err != nil {
		t.Errorf("Write: %d, %v", n, err)
	}
}

// TestLogWriterGathers: what comes within two milliseconds is one call, and nothing waits longer.
func TestLogWriterGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &sink{}
		w := newLogWriter(out, warn)
		defer w.Close()
		start := time.Now()
		for n := range 3 {
			for i := range 4 {
				write(t, w, fmt.Sprintf("%d.%d\n", n, i))
			}
			time.Sleep(logGather)
			synctest.Wait()
		}
		want := []string{"0.0\n0.1\n0.2\n0.3\n", "1.0\n1.1\n1.2\n1.3\n", "2.0\n2.1\n2.2\n2.3\n"}
		if got := out.taken(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("calls %q, want %q", got, want)
		}
		if took := time.Since(start); took != 3*logGather {
			t.Errorf("it took %v", took)
		}
	})
}

// TestLogWriterKeepsLinesWhole: many writers, each line whole, each writer's in order, none lost.
func TestLogWriterKeepsLinesWhole(t *testing.T) {
	const writers, lines = 8, 3000
	out := &sink{}
	w := newLogWriter(out, warn)
	var all sync.WaitGroup
	for who := range writers {
		all.Go(func() {
			for n := range lines {
				write(t, w, fmt.Sprintf("%d %d %s\n", who, n, strings.Repeat("x", n%50)))
			}
		})
	}
	all.Wait()
	w.Close()
	var next [writers]int
	for line := range strings.Lines(out.text()) {
		var who, n int
		if _, err := fmt.Sscanf(line, "%d %d", &who, &n); err != nil || !strings.HasSuffix(line, strings.Repeat("x", n%50)+"\n") {
			t.Fatalf("line %q: %v", line, err)
		}
		if n != next[who] {
			t.Fatalf("line %d of writer %d came as number %d", n, who, next[who])
		}
		next[who]++
	}
	for who, n := range next {
		if n != lines {
			t.Errorf("%d lines of writer %d, want %d", n, who, lines)
		}
	}
	if w.Dropped() != 0 {
		t.Errorf("%d dropped", w.Dropped())
	}
}

// TestLogWriterFull: when nobody reads, writers do not wait; lines are dropped whole, and the log says how many just where they are missing.
func TestLogWriterFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &sink{gate: make(chan struct{})} // as a pipe that is full
		w := newLogWriter(out, warn)
		line := strings.Repeat("x", 1023) + "\n"
		const fit = logBuffer / 1024
		start := time.Now()
		write(t, w, line)
		time.Sleep(logGather)
		synctest.Wait() // the first line is taken, and stuck
		for range fit - 1 + 10 {
			write(t, w, line)
		}
		write(t, w, "the last one fits no more\n")
		if w.Dropped() != 11 {
			t.Errorf("%d dropped, want 11", w.Dropped())
		}
		if took := time.Since(start); took != logGather {
			t.Errorf("the writers waited %v", took-logGather)
		}
		close(out.gate)
		time.Sleep(logGather)
		synctest.Wait()
		write(t, w, "after\n")
		w.Close()
		if got := out.text(); got != strings.Repeat(line, fit)+"dropped 11\nafter\n" {
			t.Errorf("%d bytes, the end is %q", len(got), got[max(0, len(got)-80):])
		}
		if w.Dropped() != 11 {
			t.Errorf("%d dropped at the end, want 11", w.Dropped())
		}
	})
}

// TestLogWriterTooLong: a line that never fits is dropped alone.
func TestLogWriterTooLong(t *testing.T) {
	out := &sink{}
	w := newLogWriter(out, warn)
	write(t, w, "before\n")
	write(t, w, strings.Repeat("x", logBuffer)+"\n")
	write(t, w, "after\n")
	w.Close()
	if got := out.text(); got != "before\nafter\ndropped 1\n" {
		t.Errorf("got %d bytes: %.80q", len(got), got)
	}
}

// TestLogWriterFails: a write that fails costs its lines, and no line is joined to half a one.
func TestLogWriterFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &sink{}
		w := newLogWriter(out, warn)
		defer w.Close()
		batch := func(text string) {
			write(t, w, text)
			time.Sleep(logGather)
			synctest.Wait()
		}
		broken := errors.New("broken")
		batch("one\n")
		out.failing(func([]byte) (int, error) { return 0, broken })
		batch("two\ntwo\n")
		out.failing(func([]byte) (int, error) { return 5, broken })
		batch("thr\nee\nee\n")
		out.failing(func([]byte) (int, error) { return 0, broken })
		batch("four\n")
		out.failing(nil)
		batch("five\n")
		batch("six\n")
		if got, want := out.text(), "one\nthr\ne\nfive\nsix\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if w.Dropped() != 5 {
			t.Errorf("%d dropped, want 5", w.Dropped())
		}
	})
}

// TestLogWriterClose: what was written before is there afterwards, at once; what comes later is not, and counts as lost.
func TestLogWriterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &sink{}
		w := newLogWriter(out, warn)
		start := time.Now()
		write(t, w, "last words\n")
		w.Close()
		write(t, w, "too late\n")
		w.Close()
		if got := out.text(); got != "last words\n" || w.Dropped() != 1 || time.Since(start) != 0 {
			t.Errorf("got %q, %d dropped, after %v", got, w.Dropped(), time.Since(start))
		}
		newLogWriter(out, warn).Close() // with nothing to say
	})
}

// TestLogWriterCloseGivesUp: a reader who never reads cannot keep the program from ending.
func TestLogWriterCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		w := newLogWriter(stuckWriter{stuck}, warn)
		start := time.Now()
		write(t, w, "line\n")
		w.Close()
		if took := time.Since(start); took != logFlush {
			t.Errorf("gave up after %v, want %v", took, logFlush)
		}
		close(stuck)
		<-w.done
	})
}

type stuckWriter struct{ until chan struct{} }

func (w stuckWriter) Write(b []byte) (int, error) {
	<-w.until
	return len(b), nil
}

// TestLoggerFormats: in either format a line is a line, and so is the one that tells of dropped ones.
func TestLoggerFormats(t *testing.T) {
	for _, c := range []struct {
		format       LogFormat
		level        LogLevel
		line, losses string // what they hold
	}{
		{LogJSON, "info", `"level":"info","n":1`, `"level":"warn","lines":1`},
		{LogConsole, "info", "INF hello n=1", "WRN log lines dropped: they were not read fast enough lines=1"},
		{LogJSON, "error", "", ""},
	} {
		t.Run(string(c.format+" "+LogFormat(c.level)), func(t *testing.T) {
			var out bytes.Buffer
			logger, lines := newLogger(LogConfig{Level: c.level, Format: c.format}, &out)
			logger.Info().Int("n", 1).Msg("hello")
			logger.Error().Str("text", strings.Repeat("x", logBuffer)).Msg("too long")
			lines.Close()
			got := strings.SplitAfter(out.String(), "\n")
			if c.line == "" {
				if out.Len() != 0 {
					t.Errorf("got %q", out.String())
				}
				return
			}
			if len(got) != 3 || !strings.Contains(got[0], c.line) || !strings.Contains(got[1], c.losses) {
				t.Fatalf("got %q", got)
			}
			for _, line := range got[:2] {
				if c.format == LogJSON && !json.Valid([]byte(line)) {
					t.Errorf("%q is not JSON", line)
				}
			}
		})
	}
}

// BenchmarkLog compares the relay's way to the log with a write for each line, both into a pipe that is read, at 20,000 lines a second, which is
// more than the machine has tunnels. cpu-ns/op is what the process spends on a line, the reader and
// the ticker in it included: take that of none off.
func BenchmarkLog(b *testing.B) {
	for _, way := range []string{"batched", "direct", "none"} {
		b.Run(way, func(b *testing.B) {
			r, pipe, err := os.Pipe()
			if err != nil {
				b.Fatal(err)
			}
			var reader sync.WaitGroup
			reader.Go(func() { _, _ = io.Copy(io.Discard, struct{ io.Reader }{r}) })
			out := io.Discard
			w := newLogWriter(pipe, warn)
			switch way {
			case "batched":
				out = w
			case "direct":
				out = pipe
			}
			line := []byte(strings.Repeat("x", 299) + "\n")
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			before := cpuTime(b)
			for n := range b.N {
				if n%20 == 0 {
					<-tick.C
				}
				_, _ = out.Write(line)
			}
			w.Close()
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(0, "ns/op") // the ticker's
			_ = pipe.Close()
			reader.Wait()
			_ = r.Close()
		})
	}
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
