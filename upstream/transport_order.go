package upstream

import (
	"cmp"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// fieldLines are the lines of one field; next is the first that is not written yet.
type fieldLines struct {
	name   string // canonical
	values []string
	next   int
}

// appendOrdered appends the field lines in the customer's order and spelling: each name of
// the order takes the field's next value. Fields of ours stand where his of the same meaning
// stood. Of those that have no such place, Host comes first with the framing behind it and
// the login last; no field is added but these three, and none doubled, whatever the order
// says. What it does not mention comes at the end, by name.
func (h *requestHead) appendOrdered(b []byte) ([]byte, error) {
	var room [32]fieldLines
	fields := h.sortedFields(room[:0])
	var placed, done ownPlace
	for _, name := range h.order {
		placed |= h.placeOf(name)
	}
	var err error
	if placed&hostPlace == 0 {
		if b, err = h.appendHost(b, "", placed); err != nil {
			return b, err
		}
	}
	for _, name := range h.order {
		own := h.placeOf(name)
		switch {
		case own == 0:
			b, err = appendNext(b, name, fields)
		case done&own != 0:
		case own == hostPlace:
			b, err = h.appendHost(b, name, placed)
		default:
			b, err = h.appendOwn(b, own, name)
		}
		if err != nil {
			return b, err
		}
		done |= own
	}
	if placed&loginPlace == 0 {
		if b, err = h.appendOwn(b, loginPlace, ""); err != nil {
			return b, err
		}
	}
	return appendRest(b, fields)
}

// appendHost appends Host, and behind it the framing that has no place of its own.
func (h *requestHead) appendHost(b []byte, spelled string, placed ownPlace) ([]byte, error) {
	b, err := h.appendOwn(b, hostPlace, spelled)
	for _, own := range [...]ownPlace{framingPlace, trailerPlace} {
		if err == nil && placed&own == 0 {
			b, err = h.appendOwn(b, own, "")
		}
	}
	return b, err
}

// placeOf is which field of ours stands in the place of the customer's of this name; 0 for
// none. The login stands where he had his, or what else was for the proxy alone: once the
// gateway has taken it out, the rest is in his order.
func (h *requestHead) placeOf(name string) ownPlace {
	switch {
	case len(name) == len("Host") && strings.EqualFold(name, "Host"):
		return hostPlace
	case len(name) == len("Content-Length") && strings.EqualFold(name, "Content-Length"),
		len(name) == len("Transfer-Encoding") && strings.EqualFold(name, "Transfer-Encoding"):
		return framingPlace
	case len(name) == len("Trailer") && strings.EqualFold(name, "Trailer"):
		return trailerPlace
	case len(name) == len("Proxy-Authorization") && strings.EqualFold(name, "Proxy-Authorization"):
		return loginPlace
	case len(name) == len("Connection") && strings.EqualFold(name, "Connection"):
		if h.form != handshakeForm {
			return connectionPlace
		}
	case len(name) == len("Proxy-Connection") && strings.EqualFold(name, "Proxy-Connection"):
		switch h.form {
		case absoluteForm:
			return loginPlace
		case originFormOnce:
			return connectionPlace
		}
	}
	return 0
}

// sortedFields appends the request's fields by name, without those that are ours to write.
func (h *requestHead) sortedFields(fields []fieldLines) []fieldLines {
	for name, values := range h.Header {
		if !h.owns(name) {
			fields = append(fields, fieldLines{name: name, values: values})
		}
	}
	slices.SortFunc(fields, func(x, y fieldLines) int { return strings.Compare(x.name, y.name) })
	return fields
}

// appendNext appends the next line of a field, as spelled; nothing if all are written, or
// there is none: the order is a hint.
func appendNext(b []byte, spelled string, fields []fieldLines) ([]byte, error) {
	i, ok := slices.BinarySearchFunc(fields, spelled, func(f fieldLines, spelled string) int {
		return -compareCanonical(spelled, f.name)
	})
	if !ok || fields[i].next == len(fields[i].values) {
		return b, nil
	}
	f := &fields[i]
	value := f.values[f.next]
	f.next++
	// With the field's name spelled is a token, too: only the case of letters differs.
	if !httpguts.ValidHeaderFieldName(f.name) || !validValue(value) {
		return b, errRequest
	}
	return appendField(b, spelled, value), nil
}

// appendRest appends the lines that are not written yet.
func appendRest(b []byte, fields []fieldLines) ([]byte, error) {
	for _, f := range fields {
		for _, value := range f.values[f.next:] {
			if !httpguts.ValidHeaderFieldName(f.name) || !validValue(value) {
				return b, errRequest
			}
			b = appendField(b, f.name, value)
		}
	}
	return b, nil
}

// compareCanonical compares http.CanonicalHeaderKey(spelled), for a token, with name.
func compareCanonical(spelled, name string) int {
	upper := true
	for i := range min(len(spelled), len(name)) {
		c := spelled[i]
		switch {
		case upper && 'a' <= c && c <= 'z':
			c -= 'a' - 'A'
		case !upper && 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		if c != name[i] {
			return cmp.Compare(c, name[i])
		}
		upper = c == '-'
	}
	return cmp.Compare(len(spelled), len(name))
}

// spelling is a field's name as the customer spelled it, if he did: spelled is a name that
// has a place, so that only letters of ASCII fold.
func spelling(name, spelled string) string {
	if strings.EqualFold(name, spelled) {
		return spelled
	}
	return name
}

// framingSpelling is spelling for what a reader must not miss: only words in lower case,
// capitalised or not, which every reader has met.
func framingSpelling(name, spelled string) string {
	if !strings.EqualFold(name, spelled) {
		return name
	}
	for i := range spelled {
		if c := spelled[i]; 'A' <= c && c <= 'Z' && i > 0 && spelled[i-1] != '-' {
			return name
		}
	}
	return spelled
}
