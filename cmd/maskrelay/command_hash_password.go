package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"maskrelay/proxy/account"
)

// maxPasswordInput is far beyond what can be hashed; it bounds what is read.
const maxPasswordInput = 4096

func newHashPassword(p process) *cobra.Command {
	return &cobra.Command{
		Use:   "hash-password",
		Short: "Read a password from standard input, print the hash for the accounts file",
		Long: `Read one password from standard input, without its final newline, and print the bcrypt hash that the accounts
file takes as password. At most 72 bytes.`,
		Example: "  printf %s 'secret' | maskrelay hash-password",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			hash, err := hashPassword(p.stdin)
			if err == nil {
				_, err = fmt.Fprintln(p.stdout, hash)
			}
			if err != nil {
				return failed(fmt.Errorf("hash-password: %w", err))
			}
			return nil
		},
	}
}

func hashPassword(in io.Reader) (string, error) {
	password, err := readPassword(in)
	if err != nil {
		return "", err
	}
	return account.Hash(password)
}

// readPassword takes all of in, without its final newline.
func readPassword(in io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxPasswordInput+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("standard input: %w", err)
	case len(data) > maxPasswordInput:
		return "", fmt.Errorf("more than %d bytes on standard input", maxPasswordInput)
	}
	password := trimNewline(string(data))
	if password == "" {
		return "", errors.New("no password on standard input")
	}
	return password, nil
}
