package main

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/crypto/bcrypt"
)

func TestReadPassword(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"without a newline", "secret", "secret"},
		{"with one", "secret\n", "secret"},
		{"with a carriage return", "secret\r\n", "secret"},
		{"only one is trimmed", "secret\n\n", "secret\n"},
		{"spaces stay", " a b ", " a b "},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := readPassword(strings.NewReader(c.in)); got != c.want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestHashPassword(t *testing.T) {
	got := runWith(nil, "sec:r t\n", "hash-password")
	hash, newline := strings.CutSuffix(got.stdout, "\n")
	if got.code != 0 || got.stderr != "" || !newline {
		t.Fatalf("got %+v", got)
	}
	if err := bcrypt.CompareHashAndPassword([]byte(hash), []byte("sec:r t")); err != nil {
		t.Errorf("%q is not the hash: %v", hash, err)
	}
}

func TestHashPasswordErrors(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"nothing", "", "maskrelay: hash-password: no password on standard input\n"},
		{"a newline", "\n", "maskrelay: hash-password: no password on standard input\n"},
		{"endless", strings.Repeat("x", maxPasswordInput+1), "maskrelay: hash-password: more than 4096 bytes on standard input\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := runWith(nil, c.in, "hash-password"); got != (ending{exitFailed, "", c.want}) {
				t.Errorf("got %+v", got)
			}
		})
	}
	if got := runWith(nil, strings.Repeat("y", 73), "hash-password"); got.code != exitFailed || strings.Contains(got.stderr, "yyy") || got.stdout != "" {
		t.Errorf("73 bytes: %+v", got)
	}
	broken := errors.New("broken pipe")
	if _, err := hashPassword(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}
