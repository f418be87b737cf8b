package main

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/caarlos0/env/v11"
)

// variableError is one problem with one variable. Its text is a single line that begins with the full name.
type variableError struct {
	name string // with envPrefix
	err  error
}

func (e *variableError) Error() string { return e.name + ": " + oneLine(e.err) }

func (e *variableError) Unwrap() error { return e.err }

// problems gathers everything that is wrong, so that an operator mends it in one go.
type problems struct {
	errs []error
	bad  map[string]bool
}

// add reports each of the errors joined in err against the variable envPrefix+name.
func (p *problems) add(name string, err error) {
	p.mark(name)
	for _, e := range flatten(err) {
		p.errs = append(p.errs, &variableError{envPrefix + name, e})
	}
}

func (p *problems) addf(name, format string, args ...any) {
	p.add(name, fmt.Errorf(format, args...))
}

// addFile is add for errors that may already begin with the file and line that they are about.
func (p *problems) addFile(name, file string, err error) {
	p.mark(name)
	for _, e := range flatten(err) {
		if rest, about := strings.CutPrefix(e.Error(), file+":"); !about || rest == "" || rest[0] < '0' || rest[0] > '9' {
			e = &variableError{envPrefix + name, e}
		}
		p.errs = append(p.errs, e)
	}
}

// mark remembers a variable as bad without a new line, so that nothing is concluded from its absence.
func (p *problems) mark(name string) {
	if p.bad == nil {
		p.bad = map[string]bool{}
	}
	p.bad[name] = true
}

// failed reports whether any of the variables already has a problem.
func (p *problems) failed(names ...string) bool {
	for _, n := range names {
		if p.bad[n] {
			return true
		}
	}
	return false
}

func (p *problems) err() error { return errors.Join(p.errs...) }

// addParse turns the env package's errors, which name Go fields, into ours, which name variables. values are by
// full name. No value of a secret is shown: text of any form is a valid Secret to the parser.
func (p *problems) addParse(err error, names, values map[string]string) {
	for _, e := range flattenAggregate(err) {
		var pe env.ParseError
		if !errors.As(e, &pe) {
			p.errs = append(p.errs, fmt.Errorf("environment: %w", e))
			continue
		}
		full := names[pe.Name]
		name := strings.TrimPrefix(full, envPrefix)
		value := values[full]
		switch {
		case pe.Type == durationType:
			p.addf(name, "%q is not a duration; write 10s or 10m", value)
		case pe.Type.Kind() == reflect.Bool:
			p.addf(name, "%q is neither true nor false", value)
		case pe.Type.Kind() == reflect.Int:
			p.addf(name, "%q is not a whole number from 0 to 2147483647", value)
		case pe.Type.Kind() == reflect.Float64:
			p.addf(name, "%q is not a number", value)
		default:
			p.add(name, pe.Err)
		}
	}
}

func flattenAggregate(err error) []error {
	var all env.AggregateError
	if errors.As(err, &all) {
		return all.Errors
	}
	return flatten(err)
}

// flatten takes joined errors apart. Errors that merely wrap several have words of their own and stay whole.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	var multi interface{ Unwrap() []error }
	if !errors.As(err, &multi) {
		return []error{err}
	}
	parts := multi.Unwrap()
	texts := make([]string, len(parts))
	for i, e := range parts {
		texts[i] = e.Error()
	}
	if err.Error() != strings.Join(texts, "\n") {
		return []error{err}
	}
	var out []error
	for _, e := range parts {
		out = append(out, flatten(e)...)
	}
	return out
}

// oneLine is err's text with line ends turned into semicolons.
func oneLine(err error) string {
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
}
