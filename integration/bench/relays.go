//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/elazarl/goproxy"
)

// Where a relay of the bench's own listens and which vendor it uses.
const (
	listenVariable = "BENCH_LISTEN"
	vendorVariable = "BENCH_VENDOR"
)

// runGoproxy is goproxy's own chaining with authentication, as its documentation puts it together.
func runGoproxy() error {
	if _, err := raiseFileLimit(); err != nil {
		return err
	}
	vendor, err := url.Parse("http://" + vendorLogin + "@" + os.Getenv(vendorVariable))
	if err != nil {
		return err
	}
	authorize := func(req *http.Request) { req.Header.Set("Proxy-Authorization", basic(vendorLogin)) }
	proxy := goproxy.NewProxyHttpServer()
	proxy.Logger = log.New(io.Discard, "", 0)
	proxy.Tr = &http.Transport{Proxy: http.ProxyURL(vendor), MaxIdleConnsPerHost: 100, DisableCompression: true}
	proxy.ConnectDial = proxy.NewConnectDialToProxyWithHandler("http://"+vendor.Host, authorize)
	allowed := func(req *http.Request) bool { return req.Header.Get("Proxy-Authorization") == basic(customerLogin) }
	const question = "credentials, please\n"
	proxy.OnRequest().HandleConnectFunc(func(host string, ctx *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		if allowed(ctx.Req) {
			return goproxy.OkConnect, host
		}
		ctx.Resp = goproxy.NewResponse(ctx.Req, goproxy.ContentTypeText, http.StatusProxyAuthRequired, question)
		return goproxy.RejectConnect, host
	})
	proxy.OnRequest().DoFunc(func(req *http.Request, _ *goproxy.ProxyCtx) (*http.Request, *http.Response) {
		if allowed(req) {
			return req, nil
		}
		return req, goproxy.NewResponse(req, goproxy.ContentTypeText, http.StatusProxyAuthRequired, question)
	})
	server := &http.Server{Addr: os.Getenv(listenVariable), Handler: proxy, ReadHeaderTimeout: time.Minute}
	return server.ListenAndServe()
}

// runSplice is the smallest relay that the standard library gives: http.ReadRequest, a check, and io.Copy between two TCP connections, which
// splices.
func runSplice() error {
	if _, err := raiseFileLimit(); err != nil {
		return err
	}
	return (&spliceRelay{vendor: os.Getenv(vendorVariable), want: basic(customerLogin)}).listen(os.Getenv(listenVariable))
}

// spliceRelay wants this value in Proxy-Authorization; empty takes everyone.
type spliceRelay struct{ vendor, want string }

// listen serves until the process ends.
func (r *spliceRelay) listen(addr string) error {
	ln, err := net.Listen("tcp4", addr)
	if err != nil {
		return err
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of files: until a tunnel ends
			continue
		}
		go r.serve(c.(*net.TCPConn))
	}
}

func (r *spliceRelay) serve(customer *net.TCPConn) {
	defer func() { _ = customer.Close() }() // errors of a connection end only its tunnel
	if err := customer.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return
	}
	in := bufio.NewReader(customer)
	req, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	if req.Method != http.MethodConnect || r.want != "" && req.Header.Get("Proxy-Authorization") != r.want {
		_, _ = io.WriteString(customer, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"Proxy\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return
	}
	vendor, err := r.connect(req.Host)
	if err != nil {
		_, _ = io.WriteString(customer, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return
	}
	defer func() { _ = vendor.Close() }()
	if _, err := io.WriteString(customer, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	if n := in.Buffered(); n > 0 {
		if _, err := io.CopyN(vendor, in, int64(n)); err != nil {
			return
		}
	}
	_ = customer.SetDeadline(time.Time{}) // fails on a closed connection only, and so does the copy
	var wg sync.WaitGroup
	wg.Go(func() { splice(vendor, customer) })
	splice(customer, vendor)
	wg.Wait()
}

// connect opens a tunnel through the vendor.
func (r *spliceRelay) connect(target string) (*net.TCPConn, error) {
	c, err := net.DialTimeout("tcp4", r.vendor, 10*time.Second)
	if err != nil {
		return nil, err
	}
	tcp := c.(*net.TCPConn)
	if err := askVendor(tcp, target); err != nil {
		_ = tcp.Close()
		return nil, err
	}
	return tcp, nil
}

func askVendor(c *net.TCPConn, target string) error {
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, connectHead(target, vendorLogin)); err != nil {
		return err
	}
	reply := make([]byte, len(tunnelOpen)) // not a byte more: what follows is the tunnel's
	if _, err := io.ReadFull(c, reply); err != nil {
		return err
	}
	if !bytes.Equal(reply, tunnelOpen) {
		return fmt.Errorf("vendor: %.40q", reply)
	}
	return c.SetDeadline(time.Time{})
}

// splice copies one direction to its end.
func splice(dst, src *net.TCPConn) {
	if _, err := io.Copy(dst, src); err != nil {
		_ = src.Close()
		_ = dst.Close()
		return
	}
	_ = dst.CloseWrite()
}
