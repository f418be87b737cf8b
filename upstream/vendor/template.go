package vendor

import (
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

const (
	maxTemplate = 1024 // bytes
	maxDepth    = 8    // of conditions
)

// field is what a template can name between braces.
type field uint8

// The fields; those of the text keys have the keys' indexes.
const (
	fieldTTL field = iota + iTTL
	fieldTTLSeconds
	fieldTTLMinutes
	fieldTTLHours
	fieldLogin
	fieldPassword
)

var fieldNames = [...]string{
	string(Country), string(State), string(City), string(Zip), string(ASN), string(Session), string(TTL),
	"ttl_seconds", "ttl_minutes", "ttl_hours", "login", "password",
}

// key is the index of the key whose value f is, -1 for the operator's own.
func (f field) key() int {
	switch {
	case f >= fieldLogin:
		return -1
	case f >= fieldTTL:
		return iTTL
	default:
		return int(f)
	}
}

type nodeKind uint8

const (
	nodeText nodeKind = iota
	nodeField
	nodeGiven  // {?key:...}
	nodeAbsent // {!key:...}
)

// node is a piece of a template. Trees do not change once they are parsed.
type node struct {
	kind  nodeKind
	text  string // nodeText
	field field  // nodeField
	key   int    // nodeGiven, nodeAbsent
	body  []node // nodeGiven, nodeAbsent
	pos   int    // byte offset in the template, from 1
}

// parseTemplate reads a username's or a password's template. The error never shows any
// of it: a password may stand there literally.
func parseTemplate(s string, password bool) ([]node, *TemplateError) {
	p := templateParser{s: s, password: password}
	switch {
	case s == "":
		return nil, p.fail(0, "the template is empty")
	case len(s) > maxTemplate:
		return nil, p.fail(maxTemplate, "the template is longer than 1024 bytes")
	}
	return p.nodes(0, 0)
}

type templateParser struct {
	s        string
	at       int
	password bool
}

func (p *templateParser) fail(offset int, problem string) *TemplateError {
	return &TemplateError{Password: p.password, Pos: offset + 1, Problem: problem}
}

// nodes reads up to the brace that ends the condition which began at open, or to the
// end of the template at depth 0.
func (p *templateParser) nodes(depth, open int) ([]node, *TemplateError) {
	var list []node
	for p.at < len(p.s) {
		var n node
		var err *TemplateError
		switch rest := p.s[p.at:]; {
		case strings.HasPrefix(rest, "{{"), rest[0] != '{' && rest[0] != '}', depth == 0 && strings.HasPrefix(rest, "}}"):
			n, err = p.literal(depth)
		case rest[0] == '}' && depth > 0:
			p.at++
			return list, nil
		case rest[0] == '}':
			return nil, p.fail(p.at, "'}' closes nothing; a literal brace is written '}}'")
		case strings.HasPrefix(rest, "{?"), strings.HasPrefix(rest, "{!"):
			n, err = p.condition(depth)
		default:
			n, err = p.value()
		}
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	if depth > 0 {
		return nil, p.fail(open, "'{' is never closed")
	}
	return list, nil
}

// literal reads text up to the next brace that means something.
func (p *templateParser) literal(depth int) (node, *TemplateError) {
	n := node{kind: nodeText, pos: p.at + 1}
	var b strings.Builder
	for ; p.at < len(p.s); p.at++ {
		c, rest := p.s[p.at], p.s[p.at:]
		switch {
		case inTwoBraces(rest):
			return n, p.fail(p.at, "a field is written with one brace, {login}; two make a brace of the login")
		case strings.HasPrefix(rest, "{{"), depth == 0 && strings.HasPrefix(rest, "}}"):
			p.at++ // the loop takes the second
		case c == '{', c == '}':
			n.text = b.String()
			return n, nil
		case c < 0x20 || c == 0x7f:
			return n, p.fail(p.at, "control character")
		case c == ':' && !p.password:
			return n, p.fail(p.at, "a username cannot hold ':'")
		}
		b.WriteByte(c)
	}
	n.text = b.String()
	return n, nil
}

// inTwoBraces reports whether s begins with what other programs' templates would read as a
// field, or with a condition written like that: as text it is hardly ever meant.
func inTwoBraces(s string) bool {
	s, ok := strings.CutPrefix(s, "{{")
	if !ok {
		return false
	}
	end := strings.IndexAny(s, "{}:")
	if end < 0 || s[end] == '{' {
		return false
	}
	name := strings.TrimSpace(s[:end])
	if s[end] == '}' {
		return slices.Contains(fieldNames[:], name)
	}
	return name != "" && (name[0] == '?' || name[0] == '!') && slices.Contains(fieldNames[:vendorKeys], name[1:])
}

// value reads {name}.
func (p *templateParser) value() (node, *TemplateError) {
	open := p.at
	name, err := p.name(open, open+1, "}")
	if err != nil {
		return node{}, err
	}
	for f, known := range fieldNames {
		if name == known {
			return node{kind: nodeField, field: field(f), pos: open + 1}, nil
		}
	}
	return node{}, p.fail(open, unknownName("field", name, fieldNames[:]))
}

// condition reads {?key:...} or {!key:...}.
func (p *templateParser) condition(depth int) (node, *TemplateError) {
	open := p.at
	n := node{kind: nodeGiven, pos: open + 1}
	if p.s[open+1] == '!' {
		n.kind = nodeAbsent
	}
	if depth == maxDepth {
		return n, p.fail(open, "conditions are nested deeper than 8")
	}
	name, err := p.name(open, open+2, ":")
	if err != nil {
		return n, err
	}
	n.key = keyIndex(name)
	if n.key < 0 || n.key >= vendorKeys {
		return n, p.fail(open, unknownName("key", name, fieldNames[:vendorKeys]))
	}
	if n.body, err = p.nodes(depth+1, open); err == nil && len(n.body) == 0 {
		err = p.fail(open, "the condition has nothing after its ':'")
	}
	return n, err
}

// name reads from offset from to the byte end, and steps over that.
func (p *templateParser) name(open, from int, end string) (string, *TemplateError) {
	length := strings.IndexAny(p.s[from:], "{}:")
	switch {
	case length < 0:
		return "", p.fail(open, "'{' is never closed")
	case p.s[from+length] != end[0]:
		if end == ":" {
			return "", p.fail(from+length, "a condition is written {?key:...} or {!key:...}")
		}
		return "", p.fail(from+length, "'}' is missing after the field's name")
	}
	p.at = from + length + 1
	return p.s[from : from+length], nil
}

// unknownName names what would be right and not what stands there.
func unknownName(what, name string, known []string) string {
	for _, k := range known {
		if len(name) <= 2*len(k) && levenshtein.ComputeDistance(strings.ToLower(name), k) <= 2 {
			return "unknown " + what + "; did you mean " + k + "?"
		}
	}
	return "unknown " + what + "; there are " + strings.Join(known, ", ")
}

// formatTemplate writes a tree as a template that parses to the same tree.
func formatTemplate(list []node) string {
	var b strings.Builder
	for _, n := range list {
		switch n.kind {
		case nodeText:
			b.WriteString(strings.NewReplacer("{", "{{", "}", "}}").Replace(n.text))
		case nodeField:
			b.WriteString("{" + fieldNames[n.field] + "}")
		case nodeGiven:
			b.WriteString("{?" + fieldNames[n.key] + ":" + formatTemplate(n.body) + "}")
		case nodeAbsent:
			b.WriteString("{!" + fieldNames[n.key] + ":" + formatTemplate(n.body) + "}")
		}
	}
	return b.String()
}

// walk calls f for each node that is rendered when the keys of given are given.
func walk(list []node, given keySet, f func(*node)) {
	for i := range list {
		switch n := &list[i]; n.kind {
		case nodeGiven, nodeAbsent:
			if given.has(n.key) == (n.kind == nodeGiven) {
				walk(n.body, given, f)
			}
		default:
			f(n)
		}
	}
}
