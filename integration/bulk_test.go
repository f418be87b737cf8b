package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"maskrelay/integration/lab"
)

// TestBulk moves 64 MiB up and 256 MiB down, each over TLS and as plain HTTP, and compares digests.
func TestBulk(t *testing.T) {
	t.Parallel()
	const up, down = 64 << 20, 256 << 20
	curl := lab.Need(t, "curl")[0]
	c := customerSees{stack: startStack(t, "haproxy", "squid", nil), site: startTarget(t, "")}
	dir := openDir(t)
	upload := filepath.Join(dir, "up")
	makeFile(t, upload, up)
	wantUp := fmt.Sprintf("%d %s\n", up, fileDigest(t, upload))
	wantDown := digest(t, bodyBytes(down))
	for _, scheme := range []string{"https", "http"} {
		t.Run(scheme, func(t *testing.T) {
			args := []string{"-q", "-sS", "--max-time", "100", "--fail", "--cacert", c.site.caFile, "-x", c.stack.proxyURL()}
			if got := output(t, exec.Command(curl, append(args, "-T", upload, c.url(scheme, "/digest"))...)); got != wantUp {
				t.Errorf("upload: target got %q, want %q", got, wantUp)
			}
			into := filepath.Join(dir, scheme)
			output(t, exec.Command(curl, append(args, "-o", into, c.url(scheme, fmt.Sprintf("/bytes?n=%d", down)))...))
			if got := fileDigest(t, into); got != wantDown {
				t.Errorf("download has digest %s, want %s", got, wantDown)
			}
		})
	}
	var sent, received int64
	lab.Wait(t, clientLimit, "the log to have the four exchanges", func() bool {
		sent, received = 0, 0
		for _, e := range c.stack.exchanges(t) {
			sent, received = sent+e.Sent, received+e.Received
		}
		return sent+received >= 2*(up+down)
	})
	if low := min(sent, received); low < 2*up || low > 2*up+down/16 {
		t.Errorf("the log counts %d bytes sent and %d received; the smaller must be the uploads' %d and some overhead", sent, received, 2*up)
	}
}

func makeFile(t *testing.T, path string, n int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadFrom(bodyBytes(n)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func fileDigest(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only read
	return digest(t, f)
}
