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
	handshakeForm                     // to the target, through a tunnel, which is to become another protocol's
)

// requestHead is what a request's head is made of.
type requestHead struct {
	*http.Request
	login string // for a gateway, if any
	form  requestForm
	order []string // see PlainRequest.Order
}

// AppendHandshake appends the head of a websocket handshake, to be sent to the target itself
// through a tunnel: every field of r.Header, Connection and Upgrade among them, and Host. r
// and order are as in PlainRequest. It fails if the head cannot be written so that it has
// one reading.
func AppendHandshake(b []byte, r *http.Request, order []string) ([]byte, error) {
	return appendRequest(b, &requestHead{Request: r, form: handshakeForm, order: order})
}

// appendRequest appends the head. There is exactly one framing, ours. Without an order Host
// comes first, then User-Agent, the framing and the login, then the rest by name.
func appendRequest(b []byte, h *requestHead) ([]byte, error) {
	if !httpguts.ValidHeaderFieldName(h.Method) || !validValue(h.Host) || h.Host == "" || !httpguts.ValidHostHeader(h.Host) {
		return b, errRequest
	}
	b = append(append(b, h.Method...), ' ')
	start := len(b)
	b = appendTarget(b, h.URL, h.form)
	if slices.ContainsFunc(b[start:], func(c byte) bool { return c <= ' ' || c == 0x7f }) || len(b) == start {
		return b, errRequest
	}
	b = append(b, " HTTP/1.1\r\n"...)
	var err error
	if h.order != nil {
		b, err = h.appendOrdered(b)
	} else {
		b, err = h.appendSorted(b)
	}
	if err != nil {
		return b, err
	}
	return append(b, "\r\n"...), nil
}

// appendSorted appends the field lines of a request whose order is not known.
func (h *requestHead) appendSorted(b []byte) ([]byte, error) {
	b = appendField(b, "Host", h.Host)
	for _, agent := range h.Header["User-Agent"] {
		if !validValue(agent) {
			return b, errRequest
		}
		b = appendField(b, "User-Agent", agent)
	}
	var err error
	for own := framingPlace; own <= loginPlace; own <<= 1 {
		if b, err = h.appendOwn(b, own, ""); err != nil {
			return b, err
		}
	}
	return appendFields(b, h.Header, func(name string) bool { return name == "User-Agent" || h.owns(name) })
}

// owns reports whether a field, by its canonical name, is written by appendOwn or by nobody.
func (h *requestHead) owns(name string) bool {
	switch name {
	case "Host", "Content-Length", "Transfer-Encoding", "Trailer", "Proxy-Authorization":
		return true
	case "Connection":
		return h.form != handshakeForm
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

// ownPlace is a field of ours, and its place among the customer's. They are bits.
type ownPlace uint8

const (
	hostPlace ownPlace = 1 << iota
	framingPlace
	trailerPlace
	connectionPlace
	loginPlace
)

// appendOwn appends the line of a field of ours, if there is one; spelled is what the
// customer wrote in its place, empty for nothing.
func (h *requestHead) appendOwn(b []byte, own ownPlace, spelled string) ([]byte, error) {
	switch own {
	case hostPlace:
		return appendField(b, spelling("Host", spelled), h.Host), nil
	case framingPlace:
		return h.appendFraming(b, spelled), nil
	case trailerPlace:
		return h.appendTrailer(b, spelled)
	case connectionPlace:
		if h.form == originFormOnce {
			b = appendField(b, spelling("Connection", spelled), "close")
		}
	case loginPlace:
		if h.form != absoluteForm || h.login == "" {
			return b, nil
		}
		if !validValue(h.login) {
			return b, errRequest
		}
		b = appendField(b, "Proxy-Authorization", h.login)
	}
	return b, nil
}

// appendFraming appends how the request's body ends: what the customer said must not
// matter. A method that usually has a body says so if there is none (RFC 9110 §8.6), of
// another's request only what the customer has said himself.
func (h *requestHead) appendFraming(b []byte, spelled string) []byte {
	switch {
	case hasBody(h.Request) && h.ContentLength <= 0:
		return appendField(b, framingSpelling("Transfer-Encoding", spelled), "chunked")
	case !hasBody(h.Request) && !strings.EqualFold(spelled, "Content-Length") && (h.order != nil || !usuallyHasBody(h.Method)):
		return b
	}
	var length int64
	if hasBody(h.Request) {
		length = h.ContentLength
	}
	b = append(append(b, framingSpelling("Content-Length", spelled)...), ": "...)
	return append(strconv.AppendInt(b, length, 10), "\r\n"...)
}

func usuallyHasBody(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

// appendTrailer announces the trailers of a chunked body.
func (h *requestHead) appendTrailer(b []byte, spelled string) ([]byte, error) {
	if len(h.Trailer) == 0 || !hasBody(h.Request) || h.ContentLength > 0 {
		return b, nil
	}
	names := make([]string, 0, len(h.Trailer))
	for name := range h.Trailer {
		if !validTrailer(name) {
			return b, errRequest
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return appendField(b, spelling("Trailer", spelled), strings.Join(names, ",")), nil
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
