package upstreamtest

import (
	"strings"
	"testing"
)

func TestTargets(t *testing.T) {
	t.Parallel()
	pattern := func(n int64) string {
		var b strings.Builder
		if err := copyAsItComes(&b, Pattern(n)); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	tests := []struct {
		name  string
		start func() (*Target, error)
		send  string
		want  string
		reset bool
	}{
		{"echo", StartEcho, "ping", "ping", false},
		{"echo of bulk", StartEcho, pattern(200_000), pattern(200_000), false},
		{"banner", func() (*Target, error) { return StartBanner([]byte("hello ")) }, "ping", "hello ping", false},
		{"sink", StartSink, "hi", "8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4 2\n", false},
		{"sink of nothing", StartSink, "", SinkLine(PatternDigest(0), 0), false},
		{"source", func() (*Target, error) { return StartSource(70_000) }, "x", pattern(70_000), false},
		{"reset", func() (*Target, error) { return StartReset(2) }, "hi", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			target, err := tt.start()
			target = closing(t, target, err)
			c := dial(t, target.Addr())
			c.send(tt.send)
			if tt.reset {
				if !c.isReset() {
					t.Error("no reset")
				}
			} else {
				c.fin()
				if got := c.rest(); got != tt.want {
					t.Errorf("got %.100q", got)
				}
			}
			awaitClosed(t, target.Conns()[0])
			if got := string(target.Received()); got != tt.send || target.Dropped() != 0 {
				t.Errorf("received %.100q", got)
			}
			if target.Accepted() != 1 || target.Open() != 0 {
				t.Errorf("accepted %d, open %d", target.Accepted(), target.Open())
			}
		})
	}
}

func TestTargetCloseCutsIdleConnections(t *testing.T) {
	t.Parallel()
	echo := must(StartEcho())(t)
	c := dial(t, echo.Addr())
	c.send("x")
	c.exactly(1)
	if err := echo.Close(); err != nil {
		t.Fatal(err)
	}
	if !c.isReset() || echo.Open() != 0 {
		t.Error("the connection lives on")
	}
}
