package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"maskrelay/proxy/capacity"
)

// TestWatchLogsChanges: one line when memory runs out, from the start if it has, and one when it suffices again.
func TestWatchLogsChanges(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "proc"), 0o700); err != nil {
		t.Fatal(err)
	}
	available := func(kb string) {
		text := "MemTotal: 1024000 kB\nMemAvailable: " + kb + " kB\n"
		if err := os.WriteFile(filepath.Join(root, "proc", "meminfo"), []byte(text), 0o600); err != nil {
			t.Error(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		available("10240")
		var log bytes.Buffer
		s := surroundings{pressure: capacity.NewPressure(os.DirFS(root))}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.watch(ctx, zerolog.New(&log))
		}()
		for _, kb := range []string{"5120", "512000", "409600", "20480", "512000"} {
			synctest.Wait()
			available(kb)
			time.Sleep(2 * capacity.PressureInterval)
		}
		stop()
		<-done
		want := `{"level":"warn","memory":"99% of the 1000 MiB of the machine in use","message":"memory runs out: new connections are refused"}
{"level":"info","memory":"50% of the 1000 MiB of the machine in use","message":"memory suffices again: new connections are taken"}
{"level":"warn","memory":"98% of the 1000 MiB of the machine in use","message":"memory runs out: new connections are refused"}
{"level":"info","memory":"50% of the 1000 MiB of the machine in use","message":"memory suffices again: new connections are taken"}
`
		if log.String() != want {
			t.Errorf("got:\n%s\nwant:\n%s", log.String(), want)
		}
	})
}

// TestMaxConns: the operator's word holds but against file descriptors, and a contradiction is logged.
func TestMaxConns(t *testing.T) {
	for _, c := range []struct {
		name        string
		files       uint64
		set         string
		want, pairs int
		log         string
	}{
		{"as the host allows", 20000, "0", 9584, 9584, `"max_conns":9584,"bound_by":"file_descriptors"`},
		{"less", 20000, "100", 100, 9584, ""},
		{"more than files", 20000, "10000", 9584, 9584, `"max_conns":10000,"host_allows":9584,"bound_by":"file_descriptors","taken":9584`},
		{"more than memory", 1 << 20, "500000", 500000, 523872, `"max_conns":500000,"host_allows":183500,"bound_by":"memory","taken":500000`},
		{"hardly any files", 200, "0", capacity.MinConns, capacity.MinConns, `"bound_by":"floor"`},
		{"files not known", 0, "7", 7, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := LoadConfig(environ(goodEnv(), one("MAX_CONNS", c.set)))
			if err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			s := surroundings{host: capacity.Host{OpenFilesSoft: c.files, MemoryTotal: 8 << 30}}
			if got := s.maxConns(cfg, zerolog.New(&log)); got != c.want || s.filePairs() != c.pairs {
				t.Errorf("%d connections and %d pairs, want %d and %d", got, s.filePairs(), c.want, c.pairs)
			}
			if !strings.Contains(log.String(), c.log) || c.log == "" && log.Len() > 0 {
				t.Errorf("log %q, want %q", log.String(), c.log)
			}
		})
	}
}
