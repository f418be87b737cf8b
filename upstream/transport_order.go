package upstream

import (
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"maskrelay/masking"
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
	fields := h.fields(room[:0])
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
	switch len(name) {
	case len("Host"):
		if strings.EqualFold(name, "Host") {
			return hostPlace
		}
	case len("Trailer"):
		if strings.EqualFold(name, "Trailer") {
			return trailerPlace
		}
	case len("Connection"):
		if h.form != handshakeForm && strings.EqualFold(name, "Connection") {
			return connectionPlace
		}
	case len("Content-Length"):
		if strings.EqualFold(name, "Content-Length") {
			return framingPlace
		}
	case len("Transfer-Encoding"):
		if strings.EqualFold(name, "Transfer-Encoding") {
			return framingPlace
		}
	case len("Proxy-Authorization"):
		if strings.EqualFold(name, "Proxy-Authorization") {
			return loginPlace
		}
	case len("Proxy-Connection"):
		return h.placeOfProxyConnection(name)
	}
	return 0
}

func (h *requestHead) placeOfProxyConnection(name string) ownPlace {
	switch {
	case !strings.EqualFold(name, "Proxy-Connection"):
	case h.form == absoluteForm:
		return loginPlace
	case h.form == originFormOnce:
		return connectionPlace
	}
	return 0
}

// fewFields are looked through faster than they are sorted.
const fewFields = 24

// fields appends the request's fields without those that are ours to write; many of them
// are sorted.
func (h *requestHead) fields(fields []fieldLines) []fieldLines {
	for name, values := range h.Header {
		if len(values) > 0 && !h.owns(name) {
			fields = append(fields, fieldLines{name: name, values: values})
		}
	}
	if len(fields) > fewFields {
		sortFields(fields)
	}
	return fields
}

func sortFields(fields []fieldLines) {
	slices.SortFunc(fields, func(x, y fieldLines) int { return strings.Compare(x.name, y.name) })
}

// findField is the field that spelled is a name of, nil if there is none.
func findField(fields []fieldLines, spelled string) *fieldLines {
	if len(fields) > fewFields {
		i, ok := slices.BinarySearchFunc(fields, spelled, func(f fieldLines, spelled string) int {
			return -masking.CompareCanonical(spelled, f.name)
		})
		if ok {
			return &fields[i]
		}
		return nil
	}
	for i := range fields {
		if f := &fields[i]; len(f.name) == len(spelled) && masking.CompareCanonical(spelled, f.name) == 0 {
			return f
		}
	}
	return nil
}

// appendNext appends the next line of a field, as spelled; nothing if all are written, or
// there is none: the order is a hint.
func appendNext(b []byte, spelled string, fields []fieldLines) ([]byte, error) {
	f := findField(fields, spelled)
	if f == nil || f.next == len(f.values) {
		return b, nil
	}
	value := f.values[f.next]
	f.next++
	// With the field's name spelled is a token, too: only the case of letters differs.
	if !httpguts.ValidHeaderFieldName(f.name) || !validValue(value) {
		return b, errRequest
	}
	return appendField(b, spelled, value), nil
}

// appendRest appends the lines that are not written yet, by name.
func appendRest(b []byte, fields []fieldLines) ([]byte, error) {
	fields = slices.DeleteFunc(fields, func(f fieldLines) bool { return f.next == len(f.values) })
	sortFields(fields)
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
