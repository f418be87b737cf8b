package upstream

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
)

// errRequest guards the wire: what net/http has read cannot be so, but nothing else stands before it.
var errRequest = errors.New("upstream: the request cannot be written")

const maxPooledHead = 8 << 10

// headBuffers holds the buffers that requests' heads are written in.
var headBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

func putHeadBuffer(b *[]byte) {
	if cap(*b) <= maxPooledHead {
		headBuffers.Put(b)
	}
}

// requestForm is to whom a request speaks (RFC 9112 §3.2).
type requestForm uint8

const (
	absoluteForm   requestForm = iota // to a gateway
	originForm                        // to the target, through a tunnel
	originFormOnce                    // to the target itself, which closes after its answer
)

// appendRequest appends the request's head, for a gateway with the login, if any. Host
// comes first, then User-Agent, the framing and the login, then the rest by name. There
// is exactly one framing, ours.
func appendRequest(b []byte, r *http.Request, login string, form requestForm) ([]byte, error) {
	if !httpguts.ValidHeaderFieldName(r.Method) || !validValue(r.Host) || r.Host == "" || !httpguts.ValidHostHeader(r.Host) {
		return b, errRequest
	}
	b = append(append(b, r.Method...), ' ')
	start := len(b)
	b = appendTarget(b, r.URL, form)
	if slices.ContainsFunc(b[start:], func(c byte) bool { return c <= ' ' || c == 0x7f }) || len(b) == start {
		return b, errRequest
	}
	b = append(b, " HTTP/1.1\r\n"...)
	b = appendField(b, "Host", r.Host)
	for _, agent := range r.Header["User-Agent"] {
		if !validValue(agent) {
			return b, errRequest
		}
		b = appendField(b, "User-Agent", agent)
	}
	var err error
	if b, err = appendFraming(b, r); err != nil {
		return b, err
	}
	switch {
	case form == originFormOnce:
		b = append(b, "Connection: close\r\n"...)
	case form == absoluteForm && login != "":
		if !validValue(login) {
			return b, errRequest
		}
		b = appendField(b, "Proxy-Authorization", login)
	}
	if b, err = appendFields(b, r.Header, ownFields); err != nil {
		return b, err
	}
	return append(b, "\r\n"...), nil
}

// ownFields are written by appendRequest itself, or by nobody.
func ownFields(name string) bool {
	switch name {
	case "Host", "User-Agent", "Content-Length", "Transfer-Encoding", "Trailer", "Proxy-Authorization", "Connection":
		return true
	}
	return false
}

// appendTarget appends the request target as the URL has it: an opaque one byte for byte.
func appendTarget(b []byte, u *url.URL, form requestForm) []byte {
	if u.Opaque == "" {
		if form == absoluteForm {
			b = append(append(append(b, u.Scheme...), "://"...), u.Host...)
		}
		return append(b, u.RequestURI()...)
	}
	opaque := u.Opaque
	if form != absoluteForm {
		_, path, _ := strings.Cut(strings.TrimPrefix(opaque, "//"), "/")
		b = append(append(b, '/'), path...)
	} else {
		b = append(append(append(b, u.Scheme...), ':'), opaque...)
	}
	if u.RawQuery != "" || u.ForceQuery {
		b = append(append(b, '?'), u.RawQuery...)
	}
	return b
}

// appendFraming appends how the request's body ends. A method that usually has one
// says so if there is none (RFC 9110 §8.6).
func appendFraming(b []byte, r *http.Request) ([]byte, error) {
	switch {
	case !hasBody(r):
		switch r.Method {
		case http.MethodPost, http.MethodPut, http.MethodPatch:
			return append(b, "Content-Length: 0\r\n"...), nil
		}
		return b, nil
	case r.ContentLength > 0:
		b = append(b, "Content-Length: "...)
		return append(strconv.AppendInt(b, r.ContentLength, 10), "\r\n"...), nil
	}
	b = append(b, "Transfer-Encoding: chunked\r\n"...)
	if len(r.Trailer) == 0 {
		return b, nil
	}
	names := make([]string, 0, len(r.Trailer))
	for name := range r.Trailer {
		if !validTrailer(name) {
			return b, errRequest
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return appendField(b, "Trailer", strings.Join(names, ",")), nil
}

// validTrailer reports whether a field may stand in a trailer section.
func validTrailer(name string) bool {
	return httpguts.ValidHeaderFieldName(name) && httpguts.ValidTrailerHeader(name)
}

// appendFields appends header by name, without the fields that skip reports.
func appendFields(b []byte, header http.Header, skip func(string) bool) ([]byte, error) {
	var room [32]string
	names := room[:0]
	for name := range header {
		if !skip(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range header[name] {
			if !httpguts.ValidHeaderFieldName(name) || !validValue(value) {
				return b, errRequest
			}
			b = appendField(b, name, value)
		}
	}
	return b, nil
}

func appendField(b []byte, name, value string) []byte {
	b = append(append(b, name...), ": "...)
	return append(append(b, value...), "\r\n"...)
}

// validValue reports whether a value stays within its line.
func validValue(v string) bool { return !strings.ContainsAny(v, "\r\n\x00") }
