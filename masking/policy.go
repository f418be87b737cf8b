package masking

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync"
)

// minMark is the shortest mark that a Policy takes: a shorter one would hit innocent text all the time.
const minMark = 3

// ErrMark is wrapped by every error about a mark.
var ErrMark = errors.New("masking: invalid mark")

// PolicyConfig is what an operator adds to the built-in lists. The zero value adds nothing.
type PolicyConfig struct {
	StripRequest, StripResponse []string // header names or prefixes "X-Foo-*", case-insensitive; see ValidateStrip
	Marks                       []string // strings that must never reach a customer: vendor names, domains, gateway hosts
}

// Policy decides which header fields pass, each way. It is immutable and safe for concurrent use; the header sets it edits belong
// to the caller.
//
// Field names are compared without regard to case and with every punctuation mark as '-', because CGI programs see X_Real_Ip and
// X-Real-IP as one. Names that are no tokens (RFC 9110 §5.6.2) never pass. For a target that is itself a vendor's site, see For.
type Policy struct {
	request, response, trailer *side
	vendor                     *nameSet
	marks                      *Marks
	errors, binary             *Marks // what must not be in an error's body, if it is text and if it is not
	strip, stripTrailer        *nameSet
	lifted                     *liftedPolicies // nil in those
}

// NewPolicy builds a policy from the built-in lists and cfg. The error joins one error for each bad entry.
func NewPolicy(cfg PolicyConfig) (*Policy, error) {
	errs := []error{ValidateStrip(cfg.StripRequest), ValidateStrip(cfg.StripResponse)}
	for _, m := range cfg.Marks {
		switch {
		case len(m) < minMark:
			errs = append(errs, fmt.Errorf("%w %q: shorter than %d bytes", ErrMark, m, minMark))
		case strings.TrimSpace(m) != m:
			errs = append(errs, fmt.Errorf("%w %q: space at an end", ErrMark, m))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	marks := newMarks(append(strings.Fields(builtinMarks), cfg.Marks...), strings.Fields(innocentWords))
	request := newNameSet(hopByHop, vendorFields, proxyProducts, disclosure, clientAddress, platform, judged)
	request.suffixes = strings.Fields(clientSuffixes)
	request.add(cfg.StripRequest...)
	response := newNameSet(hopByHop, vendorFields, proxyProducts, answered)
	response.add(cfg.StripResponse...)
	trailer := newNameSet(hopByHop, vendorFields, proxyProducts, disclosure, clientAddress, platform, judged, answered, trailing)
	trailer.add(cfg.StripRequest...)
	trailer.add(cfg.StripResponse...)
	p := &Policy{
		request: newSide(request, nil),
		strip:   response, stripTrailer: trailer,
		vendor: newNameSet(vendorFields),
	}
	p.mark(marks)
	pages := strings.Split(errorPages, "\n")
	p.errors = marks.With(pages...)
	p.binary = NewMarks(append(slices.DeleteFunc(slices.Clone(marks.words[:marks.hiding]), func(w string) bool { return len(w) < minHiddenMark }), pages...)...)
	p.lifted = &liftedPolicies{of: p, configured: cfg.Marks, byMark: map[string]*Policy{}}
	return p, nil
}

// mark gives p its marks.
func (p *Policy) mark(marks *Marks) {
	p.marks = marks
	p.response, p.trailer = newSide(p.strip, marks), newSide(p.stripTrailer, marks)
}

// liftedPolicies are a policy's variants, each without one built-in mark. They are made
// when they are asked for; there are no more than there are built-in marks.
type liftedPolicies struct {
	of         *Policy
	configured []string

	mu     sync.Mutex // guards byMark
	byMark map[string]*Policy
}

// For returns the policy for an answer to a request to host: p, or, if host holds a built-in mark, one that does not look for that
// mark. A customer who asks for a vendor's site by name gets its own redirects. The configured marks are never lifted: the
// customer chooses the host.
func (p *Policy) For(host string) *Policy {
	if p.lifted == nil {
		return p
	}
	mark, _, found := p.marks.Find([]byte(host))
	if !found || slices.ContainsFunc(p.lifted.configured, func(c string) bool { return strings.EqualFold(c, mark) }) {
		return p
	}
	return p.lifted.without(mark)
}

func (l *liftedPolicies) without(mark string) *Policy {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q := l.byMark[mark]; q != nil {
		return q
	}
	rest := slices.DeleteFunc(strings.Fields(builtinMarks), func(b string) bool { return b == mark })
	q := *l.of
	q.lifted = nil
	q.mark(newMarks(append(rest, l.configured...), strings.Fields(innocentWords)))
	l.byMark[mark] = &q
	return &q
}

// ErrorMarks returns what must not be in the body of an error: the marks, and what known proxy programs write on their pages. In
// bytes that are no text marks of less than five bytes would be found by chance, and are left out.
func (p *Policy) ErrorMarks(text bool) *Marks {
	if text {
		return p.errors
	}
	return p.binary
}

// Marks returns the built-in and the configured marks.
func (p *Policy) Marks() *Marks { return p.marks }

// Request edits a customer's request header for the way to the gateway: hop-by-hop fields and those that Connection names, all that
// tells where the request came from, all that would steer the vendor, and the configured ones go. What an application sends for
// its own sake (Accept, Cookie, Authorization, X-Api-Key and their like) stays. Without a User-Agent it sets a nil one, so that
// net/http's Transport writes none either; nothing else is added.
func (p *Policy) Request(h http.Header) {
	p.request.edit(h)
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil
	}
}

// UpgradeRequest is Request for a websocket handshake: Connection: Upgrade and Upgrade: websocket are put back.
func (p *Policy) UpgradeRequest(h http.Header) {
	p.Request(h)
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
}

// Response edits a response header on its way to the customer: hop-by-hop fields and those that Connection names, all that a
// gateway adds, the configured fields, and every field line with a mark in its name or value go, also if it is percent-escaped
// or in base64. What the target sent stays, a Via
// or X-Cache of its own excepted: nobody can tell them from the gateway's. Ask GatewayMade first,
// and announce trailers afterwards: Trailer is hop-by-hop, and the keys of http.TrailerPrefix are no tokens.
func (p *Policy) Response(h http.Header) { p.response.edit(h) }

// UpgradeResponse is Response for a 101: Connection: Upgrade and the Upgrade value stay. A value that is missing, malformed or
// marked becomes "websocket", the only protocol that UpgradeRequest asks for.
func (p *Policy) UpgradeResponse(h http.Header) {
	protocol := "websocket"
	if v := h["Upgrade"]; len(v) == 1 && isProtocol(v[0]) && !p.marks.inAny(v[0]) {
		protocol = v[0]
	}
	p.Response(h)
	delete(h, "Content-Length") // an interim answer has no body (RFC 9110 §8.6)
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{protocol}
}

// isProtocol reports whether s is one protocol of an Upgrade field: name or name/version (RFC 9110 §7.8).
func isProtocol(s string) bool {
	name, version, versioned := strings.Cut(s, "/")
	return isToken(name) && (!versioned || isToken(version))
}

// Trailer edits a request's or response's trailers: what Request or Response would remove goes, and with it what may not stand in a
// trailer: framing, routing, request modifiers, authentication and content format (RFC 9110 §6.5.1).
func (p *Policy) Trailer(h http.Header) { p.trailer.edit(h) }

// Nominated are the fields that a header's Connection names as its own, nil if there are none but the usual ones. They go from the
// trailers too (RFC 9110 §7.6.1). Ask before Request or Response takes Connection away.
type Nominated map[string]bool // by lower-case name

// NominatedBy is what h nominates.
func NominatedBy(h http.Header) Nominated { return nominated(h) }

// Drop takes the fields out of a trailer.
func (n Nominated) Drop(trailer http.Header) {
	if n == nil {
		return
	}
	for name := range trailer {
		if n[strings.ToLower(name)] {
			delete(trailer, name)
		}
	}
}

// side is one direction's rules.
type side struct {
	strip *nameSet
	marks *Marks          // nil = names and values are not searched
	known map[string]bool // canonical everyday name → passes
}

func newSide(strip *nameSet, marks *Marks) *side {
	s := &side{strip: strip, marks: marks, known: map[string]bool{}}
	for _, name := range strings.Fields(everyday) {
		s.known[name] = s.judge(name)
	}
	return s
}

// passes reports whether a field of this name may stay.
func (s *side) passes(name string) bool {
	if ok, known := s.known[name]; known {
		return ok
	}
	return s.judge(name)
}

func (s *side) judge(name string) bool {
	var buf [64]byte
	folded := fold(buf[:0], name)
	return isToken(name) && !s.strip.has(folded) && !isLengthAlike(name, folded) && (s.marks == nil || !s.marks.inAny(name))
}

// isLengthAlike reports whether a name would be Content-Length for a reader who folds, and is not.
func isLengthAlike(name string, folded []byte) bool {
	return string(folded) == "content-length" && !strings.EqualFold(name, "Content-Length")
}

func (s *side) edit(h http.Header) {
	named := nominated(h)
	for name, values := range h {
		switch {
		case !s.passes(name), named != nil && named[strings.ToLower(name)]:
			delete(h, name)
		case s.marks != nil:
			s.editValues(h, name, values)
		}
	}
}

// editValues removes the lines of one field that must not pass, in place.
func (s *side) editValues(h http.Header, name string, values []string) {
	kept := values[:0]
	for _, v := range values {
		if !s.marks.inAny(v) && (name != "Warning" || !isCacheWarning(v)) {
			kept = append(kept, v)
		}
	}
	switch {
	case len(kept) == len(values):
	case len(kept) == 0:
		delete(h, name)
	default:
		clear(values[len(kept):])
		h[name] = kept
	}
}

// isCacheWarning reports whether a Warning value is one that caches add, with their own host in it (RFC 7234 §5.5.1 to §5.5.6).
func isCacheWarning(v string) bool { return strings.HasPrefix(v, "11") || strings.HasPrefix(v, "214") }

// nominated returns the lower-case names in Connection and Proxy-Connection, nil if there are none but the usual options.
//
// RFC 9110 §7.6.1 has all of them go, and so they do: whoever names Cookie or Content-Type spoils only their own message, since
// nothing that is added later (the vendor's credentials, Host) is in the map yet. Content-Length and Host stay because they are
// net/http's framing and routing; a length that is gone would turn a cut-off body into a whole one for an HTTP/1.0 client.
func nominated(h http.Header) map[string]bool {
	var named map[string]bool
	for _, field := range [...]string{"Connection", "Proxy-Connection"} {
		for _, line := range h[field] {
			for option := range strings.SplitSeq(line, ",") {
				option = textproto.TrimString(option)
				if option == "" || isUsualOption(option) {
					continue
				}
				if named == nil {
					named = map[string]bool{}
				}
				named[strings.ToLower(option)] = true
			}
		}
	}
	return named
}

// isUsualOption reports whether a connection option needs no look-up: its field is hop-by-hop anyway, or stays.
func isUsualOption(s string) bool {
	for _, usual := range [...]string{"keep-alive", "close", "upgrade", "te", "content-length", "host"} {
		if strings.EqualFold(s, usual) {
			return true
		}
	}
	return false
}
