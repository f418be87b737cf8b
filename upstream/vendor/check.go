package vendor

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parsePreset reads and checks a preset's file. Errors begin with file and line.
func parsePreset(file string, text []byte) (*Preset, error) {
	spec, err := decodeSpec(file, text)
	if err != nil {
		return nil, err
	}
	c := checker{p: &Preset{Name: spec.Name, spec: spec, text: text, file: file}}
	for _, check := range []func() error{c.names, c.templates, c.fields, c.session, c.ttl, c.grammar, c.rules, c.rest} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return c.p, nil
}

// checker turns a Spec into what a Preset works with.
type checker struct {
	p    *Preset
	used [len(fieldNames)]bool // the fields that the templates name
}

// fail says what is wrong at a path of keys, indexes of lists among them.
func (c *checker) fail(problem string, path ...string) error {
	return fmt.Errorf("vendor: %s:%d: %s: %s", c.p.file, lineOf(c.p.text, path...), strings.Join(path, "."), problem)
}

func (c *checker) names() error {
	s := &c.p.spec
	switch {
	case s.Name != strings.TrimSuffix(path.Base(c.p.file), ".yaml"):
		return c.fail("is not the file's name", "name")
	case s.Title == "":
		return c.fail("is missing", "title")
	case s.Name != Generic && s.Gateway.Host == "":
		return c.fail("is missing", "gateway", "host")
	case s.Name != Generic && s.Gateway.HTTP == 0 && s.Gateway.HTTPS == 0 && s.Gateway.SOCKS5 == 0:
		return c.fail("has no port", "gateway")
	case s.SessionPorts != nil && (s.SessionPorts.From == 0 || s.SessionPorts.From > s.SessionPorts.To):
		return c.fail("is not a range of ports", "session_ports")
	case s.LoginPrefix != "" && !strings.HasPrefix(s.Username, s.LoginPrefix):
		return c.fail("the username does not begin with it", "login_prefix")
	}
	return nil
}

func (c *checker) templates() error {
	for i, t := range []string{c.p.spec.Username, c.p.spec.Password} {
		tree, err := parseTemplate(t, i == 1)
		if err != nil {
			return c.fail(err.Error(), []string{"username", "password"}[i])
		}
		c.p.templates[i] = tree
		fields(tree, func(n *node) {
			if n.kind == nodeField {
				c.used[n.field] = true
			}
		})
	}
	return nil
}

func (c *checker) fields() error {
	c.p.fields = [iSession]spelling{plain, plain, plain, plain, plain}
	for _, key := range slices.Sorted(maps.Keys(c.p.spec.Fields)) {
		f, at := c.p.spec.Fields[key], []string{"fields", string(key)}
		i := keyIndex(string(key))
		switch {
		case i < 0 || i >= iSession:
			return c.fail("is not country, state, city, zip or asn", at...)
		case !c.used[i]:
			return c.fail("no template names it", at...)
		}
		s, problem := makeSpelling(&f)
		if problem != "" {
			return c.fail(problem, at...)
		}
		if (s.needs | s.excludes).has(i) || s.needs&s.excludes != 0 || i == iCountry && s.needs != 0 {
			return c.fail("needs or excludes contradict", at...)
		}
		c.p.fields[i] = s
	}
	for i := range iSession {
		key := keyNames[i]
		if _, ok := c.p.spec.Fields[key]; !ok && c.used[i] {
			return c.fail("is missing, and a template names it", "fields", string(key))
		}
	}
	return nil
}

func makeSpelling(f *FieldSpec) (s spelling, problem string) {
	s = spelling{aliases: f.Aliases, prefix: f.CountryPrefix, digits: f.Digits, maxLength: f.MaxLength, only: f.Only}
	s.words = plain.words
	if f.Words != nil {
		s.words = *f.Words
	}
	lookups := map[string]lookup{"": lookupNone, "country_names": lookupCountryNames, "us_codes": lookupUSCodes, "us_names": lookupUSNames}
	cases := map[string]letters{"": lettersLower, "lower": lettersLower, "upper": lettersUpper, "title": lettersTitle, "keep": lettersKeep}
	var ok [2]bool
	s.lookup, ok[0] = lookups[f.Lookup]
	s.letters, ok[1] = cases[f.Case]
	switch {
	case !ok[0]:
		return s, "unknown lookup"
	case !ok[1]:
		return s, "unknown case"
	case f.MaxLength < 0:
		return s, "max_length is negative"
	}
	if s.needs, problem = makeKeySet(f.Needs); problem != "" {
		return s, problem
	}
	if s.excludes, problem = makeKeySet(f.Excludes); problem != "" {
		return s, problem
	}
	if f.CountryPrefix != "" || len(f.Only) > 0 {
		s.needs |= 1 << iCountry
	}
	for _, country := range f.Only {
		if !isCountry(country) {
			return s, "countries holds what is no country"
		}
	}
	for country, keys := range f.NeedsIn {
		set, problem := makeKeySet(keys)
		if problem != "" || !isCountry(country) {
			return s, cmp.Or(problem, "needs_in holds what is no country")
		}
		if s.needsIn == nil {
			s.needsIn = make(map[string]keySet)
		}
		s.needsIn[country] = set
	}
	return s, ""
}

func makeKeySet(keys []Key) (set keySet, problem string) {
	for _, k := range keys {
		i := keyIndex(string(k))
		if i < 0 || i >= vendorKeys {
			return 0, "a key is none that vendors know"
		}
		set |= 1 << i
	}
	return set, ""
}

func (c *checker) session() error {
	s := c.p.spec.Session
	if s == nil {
		c.p.session = plainSession
		if c.used[iSession] {
			return c.fail("is missing, and a template names it", "session")
		}
		return nil
	}
	r := sessionRule{charset: charsets[s.Charset], length: s.Length, min: s.Min, max: s.Max, geo: s.Geo}
	switch numeric := s.Min != 0 || s.Max != 0; {
	case numeric && (s.Charset != "" || s.Length != 0):
		return c.fail("has a charset or a length, and min or max", "session")
	case numeric && (s.Min >= s.Max || s.Max > 1e18):
		return c.fail("min and max are no range up to 1e18", "session")
	case !numeric && c.p.spec.SessionPorts != nil && !c.used[iSession] && s.Charset == "" && s.Length == 0:
		r.charset, r.length = plainSession.charset, plainSession.length
	case !numeric && r.charset == "":
		return c.fail("is not alnum, lower, digits or hex", "session", "charset")
	case !numeric && (s.Length < 1 || s.Length > maxID):
		return c.fail("is not between 1 and 64", "session", "length")
	}
	c.p.session = r
	return nil
}

func (c *checker) ttl() error {
	s := c.p.spec.TTL
	if s == nil {
		c.p.ttl = plainLifetime
		if c.used[iTTL] && c.p.Name != Generic {
			return c.fail("is missing, and a template names it", "ttl")
		}
		return nil
	}
	if len(s.Units) == 0 {
		return c.fail("is missing", "ttl", "units")
	}
	l := lifetime{min: maxTTL}
	for i, u := range s.Units {
		length := unitLengths[u.Unit]
		low := max(u.Min, 1)
		if length == 0 || u.Max < low || u.Max > int64(maxTTL/length) {
			return c.fail("is no unit with a range up to 30 days", "ttl", "units["+strconv.Itoa(i)+"]")
		}
		l.units = append(l.units, unit{length: length, min: low, max: u.Max, suffix: u.Suffix})
		l.min, l.max = min(l.min, time.Duration(low)*length), max(l.max, time.Duration(u.Max)*length)
	}
	if s.Default < 0 {
		return c.fail("is negative", "ttl", "default")
	}
	c.p.ttl = l
	return nil
}

func (c *checker) grammar() error {
	g := &c.p.spec.Grammar
	if c.p.Name != Generic && g.In != "username" && g.In != "password" {
		return c.fail("is not username or password", "grammar", "in")
	}
	for key := range g.Keys {
		if i := keyIndex(string(key)); i < 0 || i >= vendorKeys {
			return c.fail("is no key that vendors know", "grammar", "keys", string(key))
		}
	}
	return nil
}

func (c *checker) rules() error {
	for i := range c.p.spec.Classify {
		s := &c.p.spec.Classify[i]
		at := []string{"classify[" + strconv.Itoa(i) + "]"}
		switch {
		case !s.Status.Any && len(s.Status.List) == 0:
			return c.fail("status is no number, list of numbers or the word any", at...)
		case slices.ContainsFunc(s.Status.List, func(n int) bool { return n < 100 || n > 999 }):
			return c.fail("status is none", at...)
		case !slices.Contains(Causes(), s.Cause):
			return c.fail("unknown cause", at...)
		case s.Match != "" && s.Header == "":
			return c.fail("match without a header", at...)
		case s.Reason == "*" || s.Header != "" && !isHeader(s.Header, false):
			return c.fail("reason or header cannot match", at...)
		case s.Status.Any && s.Reason == "" && s.Header == "" && s.Body == "":
			return c.fail("matches every answer", at...)
		}
		c.p.rules = append(c.p.rules, makeRule(s))
	}
	for cause := range c.p.spec.Advice {
		if !slices.Contains(Causes(), cause) {
			return c.fail("unknown cause", "advice", string(cause))
		}
	}
	return nil
}

func (c *checker) rest() error {
	for i, h := range c.p.spec.Headers {
		if !isHeader(h, true) {
			return c.fail("is no header's name, nor X-Foo-*", "headers["+strconv.Itoa(i)+"]")
		}
	}
	for i, m := range c.p.spec.Marks {
		if len(m) < 4 || m != strings.TrimSpace(m) {
			return c.fail("is shorter than 4 letters, or has space around it", "marks["+strconv.Itoa(i)+"]")
		}
	}
	for i, e := range c.p.spec.Examples {
		if _, fault := ParseParams(e.Params); fault != nil {
			return c.fail(fault.Error(), "examples["+strconv.Itoa(i)+"]")
		}
	}
	return nil
}

// isHeader reports whether s is the name of a header field; with a pattern, "X-Foo-*"
// too.
func isHeader(s string, pattern bool) bool {
	if pattern {
		s = strings.TrimSuffix(s, "*")
	}
	return s != "" && all(s, func(c byte) bool { return isWord(c) || c == '-' })
}
