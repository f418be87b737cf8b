package proxy

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
)

// nothingUnread reports whether the server has read all that its connections have
// received, whoever accepted them. It asks the kernel, which only Linux answers.
func nothingUnread(t *testing.T, s *Server) bool {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Skip(err)
	}
	const listening = "0A"
	for _, a := range s.Addrs() {
		port := fmt.Sprintf(":%04X", a.(*net.TCPAddr).Port)
		for line := range strings.Lines(string(table)) {
			fields := strings.Fields(line) // number, local, remote, state, queues, …
			if strings.HasSuffix(fields[1], port) && fields[3] != listening && !strings.HasSuffix(fields[4], ":00000000") {
				return false
			}
		}
	}
	return true
}
