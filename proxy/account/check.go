package account

import (
	"errors"
	"fmt"
	"strings"
)

// sentences returns the texts of the errors that are joined in err, of none if it is nil.
func sentences(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

// subjectOf returns what a sentence begins with, up to a space or a colon.
func subjectOf(sentence string) string {
	if end := strings.IndexAny(sentence, " :"); end >= 0 {
		return sentence[:end]
	}
	return sentence
}

// inspect returns what check, which may be nil, says against a, in the form that a
// problem of an account has.
func inspect(check func(*Account) error, a *Account) error {
	if check == nil {
		return nil
	}
	var problems []error
	for _, text := range sentences(check(a)) {
		problems = append(problems, errors.New("account: "+text))
	}
	return errors.Join(problems...)
}

// inspectList is inspect for accounts of which each sentence must tell the name.
func inspectList(check func(*Account) error, accounts []*Account) error {
	if check == nil {
		return nil
	}
	var problems []error
	for _, a := range accounts {
		for _, text := range sentences(check(a)) {
			problems = append(problems, fmt.Errorf("account: %q: %s", a.Name, text))
		}
	}
	return errors.Join(problems...)
}
