package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// BenchmarkPlain sends plain requests over kept connections, one for each iteration, and
// through a gateway that answers each with the same few bytes. Customers and gateway are in
// the same process.
func BenchmarkPlain(b *testing.B) {
	body := strings.Repeat("x", 2<<10)
	for name, more := range map[string]string{
		"get":     "\r\n",
		"counted": fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body),
		"chunked": "Transfer-Encoding: chunked\r\n\r\n400\r\n" + body[:1<<10] + "\r\n400\r\n" + body[:1<<10] + "\r\n0\r\n\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			head := "POST http://shop.example/path/to/page?id=17 HTTP/1.1\r\nHost: shop.example\r\n" + login() +
				"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n" +
				"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n" +
				"Accept-Encoding: gzip, deflate\r\nAccept-Language: en-GB,en;q=0.9,de;q=0.8\r\nCookie: session=3f9d2c1b7a; theme=dark\r\n"
			if more == "\r\n" {
				head = strings.Replace(head, "POST", "GET", 1)
			}
			benchmarkPlain(b, []byte(head+more))
		})
	}
}

func benchmarkPlain(b *testing.B, request []byte) {
	gateway, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	var serving sync.WaitGroup
	serving.Go(func() { plainly(gateway, &serving) })
	b.Cleanup(func() { // behind the relay's end, which closes its connections
		_ = gateway.Close()
		serving.Wait()
	})
	s := benchServer(b, "http://u:p@"+gateway.Addr().String(), false)
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	b.ReportAllocs()
	b.SetParallelism(4)
	before := cpuTime(b)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.Dial("tcp", s.Addrs()[0].String())
		if err != nil {
			b.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		buf := make([]byte, len(answer))
		for pb.Next() {
			if _, err := conn.Write(request); err != nil {
				b.Error(err)
				return
			}
			if n, err := io.ReadFull(conn, buf); err != nil || string(buf) != answer {
				b.Errorf("got %q, %v", buf[:n], err)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(cpuTime(b)-before)/1e3/float64(b.N), "cpu-µs/op")
}

// plainly is a gateway that answers every request in the same way, when its body has come.
func plainly(l net.Listener, serving *sync.WaitGroup) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		serving.Go(func() {
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			br := bufio.NewReaderSize(conn, 16<<10)
			for {
				left, chunked, err := framedBy(br)
				for chunked && err == nil {
					var line []byte
					if line, err = br.ReadSlice('\n'); bytes.Equal(line, []byte("0\r\n")) {
						left, chunked = 2, false
					}
				}
				if err == nil {
					_, err = br.Discard(left)
				}
				if err != nil {
					return
				}
				if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil {
					return
				}
			}
		})
	}
}

// framedBy reads a head, and how its body ends.
func framedBy(br *bufio.Reader) (length int, chunked bool, err error) {
	for {
		line, err := br.ReadSlice('\n')
		if err != nil || len(line) == 2 {
			return length, chunked, err
		}
		if bytes.HasPrefix(line, []byte("Content-Length: ")) {
			for _, c := range line[len("Content-Length: ") : len(line)-2] {
				length = 10*length + int(c-'0')
			}
		}
		chunked = chunked || bytes.HasPrefix(line, []byte("Transfer-Encoding: "))
	}
}
