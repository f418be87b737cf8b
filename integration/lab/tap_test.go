package lab_test

import (
	"encoding/base64"
	"io"
	"net"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/masking"
)

// The taps are what the leak tests rest on, so they must find what is there.
func TestTapFindsPlantedMarks(t *testing.T) {
	const mark = "supervendor-gw.example"
	cases := []struct {
		name, sent string
		want       bool
	}{
		{"plain", "HTTP/1.1 200 OK\r\nVia: 1.1 supervendor-gw.example\r\n\r\n", true},
		{"other case", "via: 1.1 SuperVendor-GW.example\r\n\r\n", true},
		{"base64", base64.StdEncoding.EncodeToString([]byte("x" + mark)), true},
		{"innocent", "HTTP/1.1 200 OK\r\nVia: 1.1 supervendor\r\n\r\n", false},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			tap := lab.StartTap(t, lab.TapConfig{Name: "self-check", To: sendAndClose(t, tc.sent), Dialer: masking.NewMarks(mark), Exposed: true})
			c, err := net.DialTimeout("tcp", tap.Addr(), 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(c); err != nil || string(got) != tc.sent {
				t.Fatalf("through the tap came %q, %v", got, err)
			}
			lab.Wait(t, 5*time.Second, "the tap to let go", func() bool { return tap.Open() == 0 })
			if got := len(tap.Leaks()) > 0; got != tc.want {
				t.Errorf("leaks %v, want any: %v", tap.Leaks(), tc.want)
			}
			if got := string(tap.Records()[0].ToDialer()); got != tc.sent {
				t.Errorf("record %q", got)
			}
		})
	}
}

// sendAndClose listens, and answers each connection with text in two pieces and its end.
func sendAndClose(t *testing.T, text string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			_, err = c.Write([]byte(text[:len(text)/2]))
		}
		if err == nil {
			_, err = c.Write([]byte(text[len(text)/2:]))
		}
		if err == nil {
			err = c.Close()
		}
		served <- err
	}()
	t.Cleanup(func() {
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}
