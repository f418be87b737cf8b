package lab

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

var clusterFormed = regexp.MustCompile(`cluster_state:ok[\s\S]*cluster_slots_ok:16384[\s\S]*cluster_known_nodes:3\b`)

// Do sends one command on a connection of its own, as the default user, and returns the answer's values in their order, with those of
// arrays in place of these. An error of the server ends the test. It needs no library, so that it can judge one.
func (r *Redis) Do(t testing.TB, args ...string) []string {
	t.Helper()
	answer, err := r.do(args)
	if err != nil {
		t.Fatalf("redis-server: %q: %v", args, err)
	}
	return answer
}

func (r *Redis) do(args []string) (answer []string, err error) {
	conn, err := net.DialTimeout("tcp", r.Addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	if r.CAFile != "" {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(r.pair.CA)
		conn = tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"})
	}
	defer closeQuietly(conn)
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	var question strings.Builder
	fmt.Fprintf(&question, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(&question, "$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err := io.WriteString(conn, question.String()); err != nil {
		return nil, err
	}
	return readAnswer(bufio.NewReader(conn))
}

// readAnswer reads one value of Redis's protocol, version 2.
func readAnswer(from *bufio.Reader) ([]string, error) {
	line, err := from.ReadString('\n')
	if err != nil {
		return nil, err
	}
	kind, text := line[0], strings.TrimSpace(line[1:])
	switch kind {
	case '+', ':':
		return []string{text}, nil
	case '-':
		return nil, errors.New(text)
	}
	n, err := strconv.Atoi(text)
	switch {
	case err != nil:
		return nil, err
	case n < 0:
		return nil, nil
	case kind == '$':
		value := make([]byte, n+2)
		_, err := io.ReadFull(from, value)
		return []string{string(value[:n])}, err
	case kind != '*':
		return nil, fmt.Errorf("an answer that begins with %q", kind)
	}
	var all []string
	for range n {
		part, err := readAnswer(from)
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	return all, nil
}
