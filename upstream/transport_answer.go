package upstream

import (
	"bytes"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// malformedError says what is wrong with an answer. Its texts are constants.
type malformedError struct{ what string }

func (e *malformedError) Error() string { return "the answer is malformed: " + e.what }

var (
	errAnswerTooLong  = &malformedError{"its head, a chunk's line or its trailers are too long"}
	errAnswerLine     = &malformedError{"its first line"}
	errAnswerField    = &malformedError{"a field"}
	errAnswerByte     = &malformedError{"a NUL or a bare CR in its head"}
	errAnswerLength   = &malformedError{"Content-Length"}
	errAnswerEncoding = &malformedError{"Transfer-Encoding"}
	errAnswerTrailer  = &malformedError{"a trailer"}
)

// endOfHead returns the size of the head at the start of b with its empty line, 0
// while it is not complete; there was none in the first seen bytes. Line ends may be
// bare LF (RFC 9112 §2.2).
func endOfHead(b []byte, seen int) int {
	for at := max(0, seen-2); ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0
		}
		at += i + 1
		switch {
		case at < len(b) && b[at] == '\n':
			return at + 1
		case at+1 < len(b) && b[at] == '\r' && b[at+1] == '\n':
			return at + 2
		}
	}
}

// endOfAnswer is endOfHead for an answer. Bytes that cannot begin one are taken as they are,
// for [parseAnswer] to refuse: an end of theirs may never come.
func endOfAnswer(b []byte, seen int) int {
	const begin = "HTTP/1."
	if n := min(len(b), len(begin)); string(b[:n]) != begin[:n] {
		return n
	}
	return endOfHead(b, seen)
}

// endOfLine is endOfHead for a line.
func endOfLine(b []byte, seen int) int {
	if i := bytes.IndexByte(b[seen:], '\n'); i >= 0 {
		return seen + i + 1
	}
	return 0
}

// answerHead is an answer's head in parts.
type answerHead struct {
	status int
	reason string // what follows the status code and its space
	minor  int    // of the version, HTTP/1.minor
	header http.Header
	order  []string // the names of its field lines, as spelled
}

// parseAnswer takes a head apart. It is stricter than net/http where two readers could
// differ about where the answer ends (RFC 9112 §11.1): no NUL, no bare CR, nothing
// before the first line, nothing that looks like a framing field but is not quite
// one. Other fields whose names are no tokens are left out, as they never pass the
// mask. A folded value is joined with a space (§5.2).
func parseAnswer(b []byte) (answerHead, error) {
	if bytes.IndexByte(b, 0) >= 0 || bytes.Count(b, []byte("\r")) != bytes.Count(b, []byte("\r\n")) {
		return answerHead{}, errAnswerByte
	}
	text := string(b)
	line, rest := nextLine(text)
	h := answerHead{}
	// HTTP/1.1 200 OK
	if len(line) < 12 || line[:7] != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' {
		return answerHead{}, errAnswerLine
	}
	h.minor = int(line[7] - '0')
	status, err := strconv.ParseUint(line[9:12], 10, 16)
	if err != nil || status < 100 || len(line) > 12 && line[12] != ' ' {
		return answerHead{}, errAnswerLine
	}
	h.status = int(status)
	if len(line) > 13 {
		h.reason = line[13:]
	}
	h.header, h.order, err = parseFields(rest)
	return h, err
}

// nextLine cuts the first line off, without its end.
func nextLine(s string) (line, rest string) {
	line, rest, _ = strings.Cut(s, "\n")
	return strings.TrimSuffix(line, "\r"), rest
}

// parseFields reads field lines up to an empty one. order are their names, as spelled.
func parseFields(rest string) (header http.Header, order []string, err error) {
	lines := strings.Count(rest, "\n")
	header = make(http.Header, lines)
	values := make([]string, 2*lines) // one array for all, and for the names
	order, values = values[lines:lines], values[:0:lines]
	for first := true; ; first = false {
		var line string
		if line, rest = nextLine(rest); line == "" {
			return header, order, nil
		}
		for rest != "" && (rest[0] == ' ' || rest[0] == '\t') {
			var more string
			more, rest = nextLine(rest)
			line += " " + textproto.TrimString(more)
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || first && (line[0] == ' ' || line[0] == '\t') {
			return nil, nil, errAnswerField
		}
		if !httpguts.ValidHeaderFieldName(name) {
			if looksLikeFraming(name) {
				return nil, nil, errAnswerField
			}
			continue
		}
		order = append(order, name)
		name = textproto.CanonicalMIMEHeaderKey(name)
		value = textproto.TrimString(value)
		if earlier, ok := header[name]; ok {
			header[name] = append(earlier, value)
			continue
		}
		values = append(values, value)
		header[name] = values[len(values)-1 : len(values) : len(values)]
	}
}

// looksLikeFraming reports whether a sloppy reader could take name for a framing field.
func looksLikeFraming(name string) bool {
	name = strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r | 0x20
		case 'a' <= r && r <= 'z':
			return r
		}
		return -1
	}, name)
	return strings.Contains(name, "contentlength") || strings.Contains(name, "transferencoding")
}

// framing is how an answer's body ends.
type framing struct {
	length  int64 // -1 = unknown
	chunked bool
	close   bool // the connection ends with the answer
}

// frame finds out how the answer's body ends (RFC 9112 §6.3) and takes from the header
// what belongs to the connection alone, Transfer-Encoding and Trailer. The connection
// is not used again if anything about it is odd. trailers are the announced names.
func (h *answerHead) frame(method string) (f framing, trailers http.Header, err error) {
	f.close = h.minor == 0 || hasToken(h.header["Connection"], "close") || hasToken(h.header["Proxy-Connection"], "close")
	if f.chunked, err = h.chunked(&f); err != nil {
		return framing{}, nil, err
	}
	length, err := h.contentLength(&f)
	if err != nil {
		return framing{}, nil, err
	}
	if f.chunked {
		trailers = announced(h.header["Trailer"])
	}
	delete(h.header, "Trailer")
	switch {
	case method == http.MethodHead, h.status == http.StatusNotModified:
		f.chunked, f.length = false, 0
	case h.status < 200, h.status == http.StatusNoContent:
		f.close = f.close || f.chunked || length > 0 // there should be no body; one may come
		delete(h.header, "Content-Length")           // RFC 9110 §8.6
		f.chunked, f.length = false, 0
	case f.chunked:
		if length >= 0 {
			f.close = true // §6.1: whoever sent both may be read in two ways further on
		}
		delete(h.header, "Content-Length")
		f.length = -1
	default:
		f.length = length
		f.close = f.close || length < 0
	}
	return f, trailers, nil
}

// chunked reads Transfer-Encoding: chunked alone is known. HTTP/1.0 has none.
func (h *answerHead) chunked(f *framing) (bool, error) {
	codings, ok := h.header["Transfer-Encoding"]
	if !ok {
		return false, nil
	}
	delete(h.header, "Transfer-Encoding")
	if h.minor == 0 {
		f.close = true
		return false, nil
	}
	if len(codings) != 1 || !strings.EqualFold(codings[0], "chunked") {
		return false, errAnswerEncoding
	}
	return true, nil
}

// contentLength is -1 without the field. The same value more than once counts once.
func (h *answerHead) contentLength(f *framing) (int64, error) {
	lengths := h.header["Content-Length"]
	if len(lengths) == 0 {
		return -1, nil
	}
	for _, one := range lengths[1:] {
		if one != lengths[0] {
			return 0, errAnswerLength
		}
		f.close = true
	}
	h.header["Content-Length"] = lengths[:1]
	n, err := strconv.ParseUint(lengths[0], 10, 63)
	if err != nil {
		return 0, errAnswerLength
	}
	return int64(n), nil
}

// announced are the names of a Trailer field, without values; nil if there are none.
func announced(lines []string) http.Header {
	var names http.Header
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			name = textproto.TrimString(name)
			if !httpguts.ValidTrailerHeader(name) || !httpguts.ValidHeaderFieldName(name) {
				continue
			}
			if names == nil {
				names = make(http.Header)
			}
			names[textproto.CanonicalMIMEHeaderKey(name)] = nil
		}
	}
	return names
}

func hasToken(values []string, token string) bool {
	for _, v := range values {
		for one := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(textproto.TrimString(one), token) {
				return true
			}
		}
	}
	return false
}
