package account

import "strings"

// itemsPerPart is how many accounts are parsed together. The parser needs some
// 14 KB for each: a part, not the file, sets how much memory a load takes.
const itemsPerPart = 256

const fileHead = "accounts:\n"

// part is a piece of a file that parses by itself.
type part struct {
	text string
	// offset is what a line of text lacks to be the line of the file.
	offset int
}

// splitFile cuts a file into parts of at most items accounts each. The first
// keeps the head of the file, the others get one of their own. Cuts are made
// only before items of the list "accounts" in block style, which stand at the
// list's own indentation: YAML requires more of whatever continues an item, so
// no string or comment can look like one. A file of any other shape is one part.
func splitFile(text string, items int) []part {
	whole := []part{{text: text}}
	if strings.Contains(strings.ReplaceAll(text, "\r\n", "\n"), "\r") {
		return whole // lone CRs, which may or may not be line ends
	}
	s := splitter{text: text, items: items, indent: -1}
	line := 0
	for at := 0; at < len(text); {
		end := len(text)
		if i := strings.IndexByte(text[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		line++
		if !s.line(strings.TrimRight(text[at:end], " \t\r\n"), at, line) {
			return whole
		}
		at = end
	}
	return s.finish()
}

// splitter goes through the lines of a file.
type splitter struct {
	text   string
	items  int
	headed bool // "accounts:" was seen
	indent int  // of the list's items; -1 before the first
	count  int  // of items in the part that is being gathered

	parts []part
	start int // of the part that is being gathered
	first int // line of it
}

// line takes the next line, which begins at the given offset, and reports
// whether the file still has the shape that can be cut.
func (s *splitter) line(line string, at, number int) bool {
	content := strings.TrimLeft(line, " ")
	switch {
	case content == "" || content[0] == '#':
		return true
	case !s.headed:
		head, _, commented := strings.Cut(line, "#")
		s.headed = strings.TrimRight(head, " ") == "accounts:" && (!commented || strings.HasSuffix(head, " "))
		return s.headed || line == "---"
	case strings.HasPrefix(line, "---") || strings.HasPrefix(line, "...") || line[0] == '%':
		return false
	}
	indent := len(line) - len(content)
	item := content == "-" || strings.HasPrefix(content, "- ")
	if s.indent < 0 {
		s.indent = indent
		s.count = 1
		return item
	}
	if !item || indent != s.indent {
		return true
	}
	if s.count == s.items {
		s.cut(at, number)
	}
	s.count++
	return true
}

// cut ends the gathered part at the offset at, where the given line begins.
func (s *splitter) cut(at, number int) {
	p := part{text: s.text[s.start:at]}
	if len(s.parts) > 0 {
		p.text = fileHead + p.text
		p.offset = s.first - 2
	}
	s.parts = append(s.parts, p)
	s.start, s.first, s.count = at, number, 0
}

func (s *splitter) finish() []part {
	s.cut(len(s.text), 0)
	return s.parts
}
