package upstreamtest

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxPageBytes = 16 << 30 // of /bytes
	maxLines     = 1_000_000
	maxWait      = time.Minute
)

// Seen is what the judge's root tells of a request.
type Seen struct {
	Method string `json:"method"`
	Target string `json:"target"` // as sent
	Proto  string `json:"proto"`
	Host   string `json:"host"`
	// Lines are the header lines as sent, in order and case; if the head could
	// not be found on the wire, Rebuilt is true and they are net/http's.
	Lines   []string `json:"lines"`
	Rebuilt bool     `json:"rebuilt,omitempty"`
	Remote  string   `json:"remote"`
	Body    Body     `json:"body"`
}

// Body is what a judge tells of a request body.
type Body struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"` // in hex
	// Trailers are the trailer fields that came after a chunked body.
	Trailers []string `json:"trailers,omitempty"`
}

// readBody reads the body to its end.
func readBody(r *http.Request) (Body, error) {
	sum, n, err := digest(r.Body)
	return Body{Bytes: n, SHA256: sum, Trailers: headerLines(r.Trailer)}, err
}

// headerLines lists a header by name.
func headerLines(h http.Header) []string {
	var lines []string
	for name, values := range h {
		for _, value := range values {
			lines = append(lines, name+": "+value)
		}
	}
	slices.Sort(lines)
	return lines
}

func serveSeen(w http.ResponseWriter, r *http.Request) {
	seen := Seen{Method: r.Method, Target: r.RequestURI, Proto: r.Proto, Host: r.Host, Remote: r.RemoteAddr}
	if req, ok := r.Context().Value(requestKey{}).(*RecordedRequest); ok && req != nil {
		seen.Lines = req.Lines
	} else {
		seen.Lines, seen.Rebuilt = headerLines(r.Header), true
	}
	var err error
	if seen.Body, err = readBody(r); err != nil {
		http.Error(w, "body: "+err.Error(), http.StatusBadRequest)
		return
	}
	writeJSON(w, seen)
}

// writeJSON answers 200 with v and its exact length.
func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	_, _ = w.Write(append(b, '\n')) // a client that left is not the judge's trouble
}

func serveBytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
	if err != nil || n < 0 || n > maxPageBytes {
		http.Error(w, "n: a number of bytes is needed", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	if r.Method != http.MethodHead {
		_, _ = io.Copy(w, Pattern(n))
	}
}

func serveDigest(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(r)
	if err != nil {
		http.Error(w, "body: "+err.Error(), http.StatusBadRequest)
		return
	}
	writeJSON(w, body)
}

func serveStream(w http.ResponseWriter, r *http.Request) {
	n, interval := number(r, "n", 3, maxLines), duration(r, "interval")
	w.Header().Set("Content-Type", "application/x-ndjson")
	rc := http.NewResponseController(w)
	if rc.Flush() != nil {
		return
	}
	for i := range n {
		if i > 0 && !wait(r, interval) {
			return
		}
		if _, err := fmt.Fprintf(w, "{\"line\":%d}\n", i); err != nil || rc.Flush() != nil {
			return
		}
	}
}

// gzipText is what /gzip says.
const gzipText = "compressed by the target, to be left alone on the way\n"

func serveGzip(w http.ResponseWriter, r *http.Request) {
	body := []byte(strings.Repeat(gzipText, 64))
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(body) // into memory: cannot fail
		_ = z.Close()
		body = b.Bytes()
		w.Header().Set("Content-Encoding", "gzip")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}

func serveNoType(w http.ResponseWriter, _ *http.Request) {
	w.Header()["Content-Type"] = nil // nil keeps net/http from adding its own
	w.Header()["Date"] = nil
	_, _ = io.WriteString(w, "<html>untyped and undated</html>\n")
}

func serveTrailers(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Trailer", "X-Checksum")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "body before trailers\n")
	_ = http.NewResponseController(w).Flush()
	w.Header().Set("X-Checksum", "c0ffee")
}

func serveEarlyHints(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Link", "</style.css>; rel=preload; as=style")
	w.WriteHeader(http.StatusEarlyHints)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "after early hints\n")
}

func serveContinue(w http.ResponseWriter, r *http.Request) {
	switch {
	case !strings.EqualFold(r.Header.Get("Expect"), "100-continue"):
		http.Error(w, "Expect: 100-continue is needed", http.StatusBadRequest)
	case r.URL.Query().Get("refuse") != "":
		w.Header().Set("Connection", "close") // the body will not be read
		http.Error(w, "not wanted", http.StatusExpectationFailed)
	default:
		serveDigest(w, r) // reading the body sends the 100
	}
}

func serveStatus(w http.ResponseWriter, r *http.Request) {
	code := number(r, "code", http.StatusOK, 999)
	if code < 200 {
		http.Error(w, "code: 200 to 999", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = fmt.Fprintf(w, "the target says %d\n", code) // 204 and 304 take none
}

func serveSlow(w http.ResponseWriter, r *http.Request) {
	if wait(r, duration(r, "delay")) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "at last\n")
	}
}

func serveRedirect(w http.ResponseWriter, r *http.Request) {
	to := r.URL.Query().Get("to")
	if to == "" {
		to = "/"
	}
	code := number(r, "code", http.StatusFound, 399)
	if code < 300 {
		code = http.StatusFound
	}
	w.Header().Set("Location", to)
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(code)
}

// number returns a query value, or without a sensible one def; highest at most.
func number(r *http.Request, key string, def, highest int) int {
	n, err := strconv.Atoi(r.URL.Query().Get(key))
	if err != nil || n < 0 {
		return def
	}
	return min(n, highest)
}

// duration returns a query value, 0 without a sensible one; a minute at most.
func duration(r *http.Request, key string) time.Duration {
	d, err := time.ParseDuration(r.URL.Query().Get(key))
	if err != nil {
		return 0
	}
	return min(max(d, 0), maxWait)
}
