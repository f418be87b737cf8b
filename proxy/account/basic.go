package account

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
)

// maxBasic bounds the whole field value.
const maxBasic = 4096

var (
	// ErrNoCredentials means that the field is absent or empty, or of another
	// scheme than Basic. The customer is to be asked for credentials.
	ErrNoCredentials = errors.New("account: no basic credentials")
	// ErrMalformed means that the field is of the scheme Basic but not as
	// RFC 7617 wants it, or beyond the limits of [ParseBasic].
	ErrMalformed = errors.New("account: malformed basic credentials")
)

// Credentials are what a customer presents. They are unchecked, and secret.
type Credentials struct {
	Username, Password string
}

// String returns a fixed text, so that credentials do not end in a log.
func (Credentials) String() string { return "[redacted]" }

// GoString returns a fixed text, so that credentials do not end in a log.
func (Credentials) GoString() string { return "[redacted]" }

// ParseBasic reads the value of a Proxy-Authorization or Authorization field:
// the scheme "Basic" in any case, then the standard base64 of username, colon
// and password (RFC 7617 §2). The padding may be missing; the password may have
// colons; either may be empty. Refused as [ErrMalformed] are a value of more
// than 4,096 bytes, a username of more than 512, and control bytes. The error is
// [ErrNoCredentials] or [ErrMalformed] itself. The header is not kept.
func ParseBasic(header []byte) (Credentials, error) {
	header = bytes.Trim(header, " \t")
	scheme, token, _ := bytes.Cut(header, []byte(" "))
	if !bytes.EqualFold(scheme, []byte("Basic")) {
		return Credentials{}, ErrNoCredentials
	}
	token = bytes.TrimLeft(token, " ")
	// Go's decoder skips line ends, which have no business here.
	if len(header) > maxBasic || len(token) == 0 || hasControl(token) {
		return Credentials{}, ErrMalformed
	}
	encoding := base64.RawStdEncoding
	if token[len(token)-1] == '=' {
		encoding = base64.StdEncoding
	}
	var buf [256]byte // on the stack; longer credentials cost an allocation
	decoded, err := encoding.AppendDecode(buf[:0], token)
	if err != nil {
		return Credentials{}, ErrMalformed
	}
	username, password, found := strings.Cut(string(decoded), ":")
	if !found || len(username) > maxUsername || hasControl(username) || hasControl(password) {
		return Credentials{}, ErrMalformed
	}
	return Credentials{Username: username, Password: password}, nil
}
