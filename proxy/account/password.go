package account

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

const (
	// maxPassword keeps what an operator may configure within what [ParseBasic] lets in.
	maxPassword = 1024
	// maxBcrypt is the most that bcrypt looks at.
	maxBcrypt     = 72
	bcryptLen     = 60
	hashCost      = 10
	maxBcryptCost = 15
)

// secret is what an account's password is checked against: a bcrypt hash or the
// password itself.
type secret struct {
	// text is a pointer because package fmt, which some verbs lead past String
	// into unexported fields, does not follow pointers to strings.
	text   *string
	bcrypt bool
}

// equal also tells none, which is nil, from another.
func (s *secret) equal(t *secret) bool {
	if s == nil || t == nil {
		return s == t
	}
	return *s.text == *t.text && s.bcrypt == t.bcrypt
}

// String returns a fixed text, so that a password does not end in a log.
func (secret) String() string { return "[redacted]" }

// GoString returns a fixed text, so that a password does not end in a log.
func (secret) GoString() string { return "[redacted]" }

// Hash returns the bcrypt hash of password, at cost 10, for the accounts file.
// It takes some 50 ms of one processor. The password must be one that a customer
// can send (not empty, no control bytes) and of at most 72 bytes, which is all
// that bcrypt looks at.
func Hash(password string) (string, error) {
	switch {
	case password == "":
		return "", errors.New("account: password: is empty")
	case hasControl(password):
		return "", errors.New("account: password: has a control byte")
	case len(password) > maxBcrypt:
		return "", fmt.Errorf("account: password: has %d bytes, more than bcrypt's %d", len(password), maxBcrypt)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), hashCost)
	if err != nil {
		return "", fmt.Errorf("account: hash: %w", err)
	}
	return string(hash), nil
}

// newSecret returns the secret that an operator wrote, or the problem with it,
// which never quotes it.
func newSecret(text string) (s *secret, problem string) {
	switch {
	case text == "":
		return nil, "must not be empty"
	case len(text) > maxPassword:
		return nil, fmt.Sprintf("must have at most %d bytes", maxPassword)
	case hasControl(text):
		return nil, "must not have control bytes"
	case !looksLikeBcrypt(text):
		return &secret{text: &text}, ""
	}
	cost, err := bcrypt.Cost([]byte(text))
	switch {
	case err != nil || len(text) != bcryptLen || strings.ContainsFunc(text[len("$2a$10$"):], notInBcrypt):
		return nil, "begins like a bcrypt hash but is none"
	case cost > maxBcryptCost:
		return nil, fmt.Sprintf("is a bcrypt hash of cost %d, more than %d", cost, maxBcryptCost)
	}
	return &secret{text: &text, bcrypt: true}, ""
}

func looksLikeBcrypt(text string) bool {
	return strings.HasPrefix(text, "$2a$") || strings.HasPrefix(text, "$2b$") || strings.HasPrefix(text, "$2y$")
}

func notInBcrypt(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '/')
}
