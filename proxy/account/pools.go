package account

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	// maxPool is the longest name of a pool, in bytes.
	maxPool = 32
	// maxPools is how many an account may choose from.
	maxPools = 64
)

// CheckPool returns an error unless name can be a pool's: [A-Za-z0-9_.]{1,32}, without
// the dash, which ends a parameter in a customer's username. Names are case-sensitive.
// The error names the character that cannot be there, and does not quote the name.
func CheckPool(name string) error {
	if problem := poolProblem(name); problem != "" {
		return errors.New("account: pool " + problem)
	}
	return nil
}

func poolProblem(name string) string {
	const want = "must be 1 to %d of the characters A-Z, a-z, 0-9, '_' and '.'"
	if i := strings.IndexFunc(name, notInPool); i >= 0 {
		r := []rune(name[i:])[0]
		return fmt.Sprintf(want+", and %q is none of them", maxPool, r)
	}
	if name == "" || len(name) > maxPool {
		return fmt.Sprintf(want, maxPool)
	}
	return ""
}

func notInPool(r rune) bool { return r == '-' || notInName(r) }

func (v value) pool() (string, string) {
	name, problem := v.string()
	if problem == "" {
		problem = poolProblem(name)
	}
	if problem != "" {
		return "", problem
	}
	return name, ""
}

func (a *Account) addPool(v value) (problem string) {
	name, problem := v.pool()
	switch {
	case problem != "":
	case slices.Contains(a.Pools, name):
		problem = "is there twice"
	default:
		a.Pools = append(a.Pools, name)
	}
	return problem
}

func (a *Account) addNetwork(v value) (problem string) {
	prefix, problem := v.network()
	if problem == "" {
		a.AllowFrom = append(a.AllowFrom, prefix)
	}
	return problem
}
