package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// Explained is an error of Redis or of the way to it, in words for an operator. They hold
// nothing of the URL. Unwrap has the error itself.
type Explained struct {
	words string
	err   error
}

// Error returns the words.
func (e *Explained) Error() string { return e.words }

// Unwrap returns what was explained, for errors.Is and errors.As; its text is not for logs.
func (e *Explained) Unwrap() error { return e.err }

// Explain says what an error of Redis means. nil is nil.
func Explain(err error) error {
	var done *Explained
	if err == nil || errors.As(err, &done) {
		return err
	}
	var answer redis.Error
	if errors.As(err, &answer) {
		return &Explained{words: answerWords(answer.Error()), err: err}
	}
	return &Explained{words: networkWords(err), err: err}
}

// answers are beginnings of Redis's errors; of two that fit the first one counts.
var answers = []struct{ begins, words string }{
	{"WRONGPASS", "Redis refuses the user or the password"},
	{"ERR invalid password", "Redis refuses the password"},
	{"ERR AUTH", "Redis refuses the password: it has none of its own, or wants a user too"},
	{"ERR Client sent AUTH", "Redis has no password, and the URL has one"},
	{"NOAUTH", "Redis wants a password, and the URL has none"},
	{"DENIED", "Redis is in protected mode: it has no password and answers its own host only"},
	{"LOADING", "Redis is still loading its data"},
	{"READONLY", "this Redis is a replica, which takes no writes: the URL must name the primary"},
	{"MASTERDOWN", "this Redis is a replica that has lost its primary"},
	{"NOREPLICAS", "Redis takes no writes: it has too few replicas"},
	{"MISCONF", "Redis takes no writes: it cannot save to its disk"},
	{"OOM", "Redis takes no writes: its memory is full"},
	{"BUSY", "Redis is busy with somebody's script"},
	{"CLUSTERDOWN", "the Redis Cluster is down"},
	{"TRYAGAIN", "the Redis Cluster is moving keys"},
	{"MOVED", "this Redis is of a cluster: the URL must name a further node, as ?addr=host:port"},
	{"ASK", "this Redis is of a cluster: the URL must name a further node, as ?addr=host:port"},
	{"CROSSSLOT", "keys of one call lie in several slots of the cluster"},
	{"ERR This instance has cluster support disabled", "this Redis is of no cluster: the URL must not have addr"},
	{"ERR max number of clients", "Redis has as many connections as it takes"},
	{"ERR DB index is out of range", "Redis has no database of the URL's number"},
	{"WRONGTYPE", "a key holds what this program did not write there"},
	{"NOSCRIPT", "Redis forgot a script"},
}

var (
	noCommand = regexp.MustCompile(`^NOPERM .*run the '([a-z|-]{1,40})' command`)
	errorCode = regexp.MustCompile(`^[A-Z][A-Z0-9]{1,20}\b`)
	// inScript finds what a command in a script was answered before Redis 7.
	inScript = regexp.MustCompile(`^ERR Error running script .*: -([A-Z]+ .*)`)
)

// answerWords never quotes the answer: it can hold the user's name, a key, or an argument.
func answerWords(text string) string {
	if m := inScript.FindStringSubmatch(text); m != nil {
		text = m[1]
	}
	if m := noCommand.FindStringSubmatch(text); m != nil {
		return "the Redis user may not run the command " + m[1]
	}
	if strings.HasPrefix(text, "NOPERM ") {
		return "the Redis user lacks a permission for the relays' keys or channels"
	}
	for _, a := range answers {
		if strings.HasPrefix(text, a.begins) {
			return a.words
		}
	}
	if code := errorCode.FindString(text); code != "" && code != "ERR" {
		return "Redis answers with the error " + code
	}
	return "Redis answers with an error"
}

// networkWords leaves out names and addresses, for a slip in the URL can make the password
// one of them.
func networkWords(err error) string {
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var network net.Error
	switch {
	case errors.As(err, &dns):
		return "the host of Redis has no address"
	case errors.As(err, &certificate):
		return "the certificate of Redis is not trusted, or is for another host"
	case errors.As(err, &record):
		return "Redis does not speak TLS at this port: write redis:// for the one without"
	case errors.As(err, &alert):
		return "Redis refuses the TLS handshake"
	case errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted):
		return "no free connection to Redis in time"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens at the address of Redis"
	case errors.Is(err, os.ErrNotExist):
		return "there is no socket of Redis at the path"
	case errors.Is(err, os.ErrPermission):
		return "the socket of Redis may not be used"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "Redis ended the connection; if it wants TLS, write rediss://"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "no route to Redis"
	case errors.Is(err, context.Canceled):
		return "the call of Redis was given up"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return "no answer from Redis in time"
	default:
		return "the connection to Redis failed"
	}
}
