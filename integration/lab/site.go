package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"maskrelay/upstream/upstreamtest"
)

// siteText is what a site answers.
const siteText = "calm"

// Site is a vendor and the target behind it in one child process: it echoes in tunnels, takes any body, and answers.
type Site struct {
	*Process
	Addr string
}

// StartSite starts a site. A request's path "/big/N" asks for N bytes. In tunnels to port 80 a websocket is opened first.
func StartSite(t testing.TB) *Site {
	t.Helper()
	child := startRole(t, roleSite)
	return &Site{Process: child.Process, Addr: child.line(t, 10*time.Second)}
}

// runSite prints its address and serves until its input ends.
func runSite() {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		fatal(err)
	}
	fmt.Println(ln.Addr())
	server := &http.Server{Handler: http.HandlerFunc(serveSite), ReadHeaderTimeout: time.Minute}
	go func() { fatal(server.Serve(ln)) }()
	_, _ = io.Copy(io.Discard, bufio.NewReader(os.Stdin)) // ends with the parent, by whatever error
}

func serveSite(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect {
		tunnelSite(w, r.URL.Port() == "80")
		return
	}
	_, _ = io.Copy(io.Discard, r.Body) // who does not send it all is not answered
	var n int
	if _, err := fmt.Sscanf(r.URL.Path, "/big/%d", &n); err != nil {
		_, _ = io.WriteString(w, siteText) // the customer may be gone
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(n))
	_, _ = io.CopyN(w, zeros{}, int64(n)) // the customer may be gone
}

// zeros is an endless reader.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// tunnelSite takes the connection over as a tunnel, and sends back what comes on it.
func tunnelSite(w http.ResponseWriter, websocket bool) {
	conn, r, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fatal(errors.Join(errors.New("a site's connection cannot be taken over"), err))
	}
	defer closeQuietly(conn)
	if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	if websocket {
		request, err := http.ReadRequest(r.Reader)
		if err != nil {
			return
		}
		if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+
			upstreamtest.AcceptKey(request.Header.Get("Sec-WebSocket-Key"))+"\r\n\r\n"); err != nil {
			return
		}
	}
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		if err != nil {
			return
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
	}
}
