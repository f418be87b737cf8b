package account

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// maxProblems is how many problems of a file are named.
const maxProblems = 100

// position is a place in a file, both numbers from 1.
type position struct{ line, column int }

func (p position) compare(q position) int {
	return cmp.Or(cmp.Compare(p.line, q.line), cmp.Compare(p.column, q.column))
}

// problem is what is wrong at a place of a file. The text never quotes a value.
type problem struct {
	position
	text string
}

// placed is an account and where it stands.
type placed struct {
	*Account
	position
}

// ParseFile reads the accounts of a YAML file with the contents data. It is
// strict: unknown, repeated and missing keys, wrong types, bad values, two
// accounts of one name, anchors, tags and further documents are errors, and so
// is a file without accounts, which is more likely truncated than meant; a list
// that is meant to be empty is written "accounts: []". On any error there are no
// accounts. All problems are returned at once, by errors.Join, in the order of
// the file and up to 100 of them; each text begins "name:line:column: ", and
// none quotes a password. After a syntax error the rest of its part of the file
// goes unread.
//
// A large file is parsed in parts and in parallel, on all processors.
func ParseFile(name string, data []byte) ([]*Account, error) {
	return parseFile(name, data, nil)
}

// parseFile is ParseFile with a check of each account that is valid by itself.
func parseFile(name string, data []byte, check func(*Account) error) ([]*Account, error) {
	text := strings.TrimPrefix(string(data), "\uFEFF")
	if at := invalidUTF8(text); at.line > 0 {
		return nil, joinProblems(name, []problem{{at, "not valid UTF-8"}})
	}
	return collect(name, parseParts(splitFile(text, itemsPerPart), check))
}

// invalidUTF8 returns the place of the first byte that is not UTF-8, or the zero
// position.
func invalidUTF8(text string) position {
	if utf8.ValidString(text) {
		return position{}
	}
	valid := strings.ToValidUTF8(text, "\x00")
	at := 0
	for at < len(valid) && valid[at] == text[at] {
		at++
	}
	before := text[:at]
	line := strings.Count(before, "\n")
	column := utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
	return position{line + 1, column + 1}
}

// parseParts parses all parts, as many at once as there are processors, and
// returns their results in order.
func parseParts(parts []part, check func(*Account) error) []partResult {
	results := make([]partResult, len(parts))
	var next atomic.Int64
	work := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(parts) {
				return
			}
			results[i] = parsePart(parts[i], check)
		}
	}
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(parts)) {
		wg.Go(work)
	}
	wg.Wait()
	return results
}

// collect puts the results of all parts together.
func collect(name string, results []partResult) ([]*Account, error) {
	var accounts []*Account
	var problems []problem
	lines := make(map[string]int)
	for _, r := range results {
		problems = append(problems, r.problems...)
		for _, a := range r.accounts {
			if line, ok := lines[a.Name]; ok {
				text := fmt.Sprintf("name: account %q is already at line %d", a.Name, line)
				problems = append(problems, problem{a.position, text})
				continue
			}
			lines[a.Name] = a.line
			accounts = append(accounts, a.Account)
		}
	}
	if len(problems) > 0 {
		return nil, joinProblems(name, problems)
	}
	return accounts, nil
}

func joinProblems(name string, problems []problem) error {
	slices.SortStableFunc(problems, func(p, q problem) int { return p.compare(q.position) })
	errs := make([]error, 0, min(len(problems), maxProblems+1))
	for i, p := range problems {
		if i == maxProblems {
			errs = append(errs, fmt.Errorf("%s:%d:%d: and %d more problems from here", name, p.line, p.column, len(problems)-i))
			break
		}
		errs = append(errs, fmt.Errorf("%s:%d:%d: %s", name, p.line, p.column, p.text))
	}
	return errors.Join(errs...)
}
