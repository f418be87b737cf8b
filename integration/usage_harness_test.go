package integration

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// orderSize is the length of an order: how many bytes follow it, and how many are to come back.
const orderSize = 16

// startSource is a vendor that answers each CONNECT with 200 and then does what orders in the tunnel say, so that the two directions differ.
func startSource(t testing.TB) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp4", lab.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			serving.Go(func() {
				obey(c)
				mu.Lock()
				delete(open, c)
				mu.Unlock()
				_ = c.Close() // the other end may be gone
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close() // it is open
		mu.Lock()
		for c := range open {
			_ = c.Close() // ends its goroutine
		}
		mu.Unlock()
		serving.Wait()
	})
	return "http://" + vendorUser + ":x@" + ln.Addr().String()
}

// obey serves one connection until it ends.
func obey(c net.Conn) {
	r := bufio.NewReaderSize(c, 64<<10)
	if _, err := http.ReadRequest(r); err != nil {
		return
	}
	if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	var order [orderSize]byte
	for {
		if _, err := io.ReadFull(r, order[:]); err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, r, int64(binary.BigEndian.Uint64(order[:]))); err != nil {
			return
		}
		if _, err := io.CopyN(c, zeros{}, int64(binary.BigEndian.Uint64(order[8:]))); err != nil {
			return
		}
	}
}

// zeros is an endless reader.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// mover is a tunnel through a source whose bytes are counted.
type mover struct {
	*client
	sent, received int64
}

// openMover opens a tunnel through addr.
func openMover(t testing.TB, addr, name, password string) *mover {
	t.Helper()
	c, err := dialProxy(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the relay may have cut it
	got, err := c.connect("shop.target.example:443", name, password)
	if err != nil || got.status != http.StatusOK {
		t.Fatalf("CONNECT for %s: %+v %v", name, got, err)
	}
	return &mover{client: c}
}

// move sends up bytes, the order among them, and receives down.
func (m *mover) move(up, down int64) error {
	if err := m.SetDeadline(time.Now().Add(clientLimit)); err != nil {
		return err
	}
	order := binary.BigEndian.AppendUint64(nil, uint64(up-orderSize))
	order = binary.BigEndian.AppendUint64(order, uint64(down))
	m.sent += up // what is on its way may have passed the relay
	if _, err := m.Write(order); err != nil {
		return err
	}
	if _, err := io.CopyN(m.client, zeros{}, up-orderSize); err != nil {
		return err
	}
	n, err := io.CopyN(io.Discard, m.r, down)
	m.received += n
	return err
}

// mustMove is move that ends the test where it fails.
func (m *mover) mustMove(t testing.TB, up, down int64) {
	t.Helper()
	if err := m.move(up, down); err != nil {
		t.Fatalf("move %d and %d: %v", up, down, err)
	}
}

// waitCut waits until the relay has closed the tunnel and returns how long that took.
func (m *mover) waitCut(t testing.TB, limit time.Duration) time.Duration {
	t.Helper()
	start := time.Now()
	if err := m.SetDeadline(start.Add(limit)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, m.r)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatalf("the tunnel is open after %v", limit)
	}
	return time.Since(start)
}

// usageRow is a row of the API and of "maskrelay usage --format json".
type usageRow struct {
	Account     string    `json:"account"`
	Sent        int64     `json:"sent"`
	Received    int64     `json:"received"`
	Connections int64     `json:"connections"`
	From        time.Time `json:"from"`
	To          time.Time `json:"to"`
}

// usageOf asks a relay's API for one account; an account of which nothing is known has a row of zeros.
func usageOf(t testing.TB, r *lab.Relay, account string) usageRow {
	t.Helper()
	status, body, err := r.Get("/api/v1/usage?account=" + account)
	if err != nil || status != http.StatusOK {
		t.Fatalf("usage: status %d: %v: %s", status, err, body)
	}
	return oneRow(t, body, account)
}

func oneRow(t testing.TB, body []byte, account string) usageRow {
	t.Helper()
	var answer struct{ Usage []usageRow }
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Usage) > 1 {
		t.Fatalf("usage of %s: %v: %s", account, err, body)
	}
	if len(answer.Usage) == 0 {
		return usageRow{Account: account}
	}
	if answer.Usage[0].Account != account {
		t.Fatalf("usage of %s: %s", account, body)
	}
	return answer.Usage[0]
}

// figures are what a row says of an account.
type figures struct{ sent, received, connections int64 }

func (r usageRow) figures() figures { return figures{r.Sent, r.Received, r.Connections} }

// figures are what the mover counted, of one connection.
func (m *mover) figures() figures { return figures{m.sent, m.received, 1} }

func (f figures) plus(g figures) figures {
	return figures{f.sent + g.sent, f.received + g.received, f.connections + g.connections}
}

// waitOutcomes waits until the relay's log has n lines of the account with the outcome.
func waitOutcomes(t testing.TB, r *lab.Relay, account, outcome string, n int) {
	t.Helper()
	lab.Wait(t, 10*time.Second, fmt.Sprintf("%d lines of %s with %s in the log of %s", n, account, outcome, r.Name), func() bool {
		list, err := r.Exchanges()
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, e := range list {
			if e.Account == account && e.Outcome == outcome {
				found++
			}
		}
		return found == n
	})
}

// rawReply sends a request and returns the answer as it came, to the last byte of its body.
func rawReply(t testing.TB, addr, request string) string {
	t.Helper()
	c, err := dialProxy(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // everything was read
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(c.r, &got)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return got.String()
}
