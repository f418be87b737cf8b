package account

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxNesting bounds what the parser, which is recursive, is given.
const maxNesting = 16

// partResult is what a part of a file holds.
type partResult struct {
	accounts []placed
	problems []problem
}

// parsePart parses one part. A panic of the parser, which is not ours, is a
// problem of the file and not of the relay.
func parsePart(p part, check func(*Account) error) (result partResult) {
	w := &walker{offset: p.offset, check: check}
	defer func() {
		if recover() != nil {
			result = partResult{problems: []problem{{position{max(p.offset, 0) + 1, 1}, "cannot be parsed"}}}
		}
	}()
	tokens := lexer.Tokenize(p.text)
	if t := tooDeep(tokens); t != nil {
		w.report(w.at(t), "nested too deeply")
		return w.partResult
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		w.syntax(err)
		return w.partResult
	}
	w.file(file)
	return w.partResult
}

// tooDeep returns the token at which collections on one line, or in flow style,
// are nested deeper than maxNesting, or nil.
func tooDeep(tokens token.Tokens) *token.Token {
	flow, run := 0, 0
	for _, t := range tokens {
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType, token.MappingValueType:
			run++
		case token.StringType, token.SingleQuoteType, token.DoubleQuoteType, token.IntegerType:
			run = 0
		}
		if flow > maxNesting || run > maxNesting || t.Position.IndentNum > 10*maxNesting {
			return t
		}
	}
	return nil
}

// walker reads a syntax tree.
type walker struct {
	partResult
	offset int
	check  func(*Account) error // nil = none
}

func (w *walker) at(t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{max(w.offset, 0) + 1, 1}
	}
	return position{max(t.Position.Line+w.offset, 1), max(t.Position.Column, 1)}
}

// start returns where n begins: the token of a block mapping is the colon after
// its first key.
func (w *walker) start(n ast.Node) position {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		n = m.Values[0].Key
	}
	return w.at(n.GetToken())
}

func (w *walker) report(at position, text string) {
	w.problems = append(w.problems, problem{at, text})
}

// syntax reports a parser's error: its place and its message, never the lines
// of the file that come with it.
func (w *walker) syntax(err error) {
	var syntax yaml.Error
	if !errors.As(err, &syntax) {
		w.report(w.at(nil), "syntax error")
		return
	}
	text := syntax.GetMessage()
	// These go on with a piece of the file.
	for _, safe := range []string{
		"found unknown escape character", "found invalid tag character", "invalid header option",
		"unknown YAML version", "cannot assign default value", "mapping key",
	} {
		if strings.HasPrefix(text, safe) {
			text = safe
		}
	}
	w.report(w.at(syntax.GetToken()), "syntax error: "+text)
}

func (w *walker) file(f *ast.File) {
	var root ast.Node
	for _, doc := range f.Docs {
		switch {
		case doc.Body == nil:
		case root == nil:
			root = doc.Body
		default:
			w.report(w.at(doc.Body.GetToken()), "more than one document")
			return
		}
	}
	if root == nil {
		w.report(w.at(nil), "accounts is missing; an empty list is written accounts: []")
		return
	}
	fields, ok := w.mapping(root, []string{"accounts"})
	if !ok {
		w.report(w.at(root.GetToken()), valueOf(root).problem("must begin with the key accounts"))
		return
	}
	list, ok := fields["accounts"]
	if !ok {
		w.report(w.start(root), "accounts is missing")
		return
	}
	sequence, ok := list.(*ast.SequenceNode)
	if !ok {
		w.report(w.at(list.GetToken()), "accounts: "+valueOf(list).problem("must be a list"))
		return
	}
	for _, item := range sequence.Values {
		w.account(item)
	}
}

// mapping returns the values of a mapping by their keys, which must be among
// known, and reports whether n is one.
func (w *walker) mapping(n ast.Node, known []string) (map[string]ast.Node, bool) {
	var pairs []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		return nil, false
	}
	fields := make(map[string]ast.Node, len(pairs))
	for _, pair := range pairs {
		at := w.at(pair.Key.GetToken())
		key, ok := pair.Key.(*ast.StringNode)
		switch {
		case !ok:
			w.report(at, "a key must be a plain name")
		case !slices.Contains(known, key.Value):
			w.report(at, unknownKey(key.Value, known))
		case fields[key.Value] != nil:
			w.report(at, key.Value+" is given twice")
		default:
			fields[key.Value] = pair.Value
		}
	}
	return fields, true
}

// unknownKey quotes the key only if it is nearly one of the known: in a
// misshapen file anything can stand where a key is expected.
func unknownKey(key string, known []string) string {
	for _, k := range known {
		if len(key) < 2*len(k) && levenshtein.ComputeDistance(key, k) <= 2 {
			return fmt.Sprintf("unknown key %q; did you mean %q?", key, k)
		}
	}
	return "unknown key; known are " + strings.Join(known, ", ")
}

func (w *walker) account(n ast.Node) {
	if n == nil {
		w.report(w.at(nil), "an account must have name and password")
		return
	}
	keys := accountKeys()
	before := len(w.problems)
	at := w.start(n)
	fields, ok := w.mapping(n, keys)
	if !ok {
		w.report(at, "account: "+valueOf(n).problem("must be a mapping with name and password"))
		return
	}
	a := &Account{}
	for _, key := range keys {
		value, ok := fields[key]
		switch {
		case ok:
			w.field(a, key, value)
		case key == "name" || key == "password":
			w.report(at, key+" is missing")
		}
	}
	if len(w.problems) == before && w.check != nil {
		w.checked(w.check(a), fields)
	}
	if len(w.problems) == before {
		w.accounts = append(w.accounts, placed{a, w.at(fields["name"].GetToken())})
	}
}

// checked reports what a check said about an account, where the keys stand that it
// speaks of.
func (w *walker) checked(err error, fields map[string]ast.Node) {
	for _, text := range sentences(err) {
		n := fields[subjectOf(text)]
		if n == nil {
			n = fields["name"]
		}
		w.report(w.at(n.GetToken()), text)
	}
}

// field sets one field of a, or reports the problem with its value.
func (w *walker) field(a *Account, key string, n ast.Node) {
	if l, ok := listOf(key); ok {
		w.list(a, key, l, n)
		return
	}
	if text := a.set(key, valueOf(n)); text != "" {
		w.report(w.at(n.GetToken()), key+": "+text)
	}
}

// list reads a list into a, and reports the problem of each element by itself.
func (w *walker) list(a *Account, key string, l list, n ast.Node) {
	sequence, ok := n.(*ast.SequenceNode)
	text := ""
	if !ok {
		text = valueOf(n).problem(l.want)
	} else {
		text = l.problem(len(sequence.Values))
	}
	if text != "" {
		w.report(w.at(n.GetToken()), key+": "+text)
		return
	}
	for _, element := range sequence.Values {
		if text := l.add(a, valueOf(element)); text != "" {
			w.report(w.at(element.GetToken()), key+": "+text)
		}
	}
}

// valueOf returns what a node says, without where it stands.
func valueOf(n ast.Node) value {
	switch n := n.(type) {
	case *ast.NullNode:
		return value{kind: kindNull}
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		return value{kind: kindAlias}
	case *ast.StringNode:
		return value{kindString, n.Value}
	case *ast.IntegerNode:
		return value{kindInteger, n.Token.Value}
	case *ast.FloatNode:
		return value{kindFloat, n.Token.Value}
	case *ast.InfinityNode, *ast.NanNode:
		return value{kind: kindSpecial}
	case *ast.BoolNode:
		return value{kindBool, strconv.FormatBool(n.Value)}
	case *ast.SequenceNode:
		return value{kind: kindList}
	}
	return value{}
}
