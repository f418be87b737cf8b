package account

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ParseList reads accounts from a list for a few: name:password[:max
// connections], separated by commas, as in "alice:secret:2000,bob:hunter2".
// White space around an entry is dropped. The password is plain text or a bcrypt
// hash; one with a colon or a comma needs the accounts file. All problems are
// returned at once, by errors.Join, each with the number of its entry from 1;
// no error quotes a password.
func ParseList(s string) ([]*Account, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	var accounts []*Account
	var problems []error
	seen := make(map[string]int)
	number := 0
	for entry := range strings.SplitSeq(s, ",") {
		number++
		a, problem := parseEntry(strings.TrimSpace(entry))
		if problem == "" && seen[a.Name] > 0 {
			problem = fmt.Sprintf("name %q is already that of entry %d", a.Name, seen[a.Name])
		}
		if problem != "" {
			problems = append(problems, fmt.Errorf("account: entry %d: %s", number, problem))
			continue
		}
		seen[a.Name] = number
		accounts = append(accounts, a)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return accounts, nil
}

func parseEntry(entry string) (*Account, string) {
	if entry == "" {
		return nil, "is empty"
	}
	fields := strings.Split(entry, ":")
	if len(fields) < 2 || len(fields) > 3 {
		return nil, "must be name:password or name:password:max connections; a password with a colon needs the accounts file"
	}
	if problem := nameProblem(fields[0]); problem != "" {
		return nil, "name " + problem
	}
	password, problem := newSecret(fields[1])
	if problem != "" {
		return nil, "password " + problem
	}
	a := &Account{Name: fields[0], password: password}
	if len(fields) == 3 {
		n, ok := parseWhole(fields[2])
		if !ok {
			return nil, "max connections " + wantWhole
		}
		a.MaxConns = n
	}
	return a, ""
}

const wantWhole = "must be a whole number from 0 to 2147483647"

// parseWhole reads a decimal number of digits only, without leading zeros.
func parseWhole(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n > math.MaxInt32 || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	return int(n), true
}
