package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
)

// maxSecretFile bounds what a secret's file holds, in bytes.
const maxSecretFile = 64 << 10

// maxPEMFile bounds a file of certificates or keys, in bytes.
const maxPEMFile = 1 << 20

// variables are those of environ that begin with envPrefix, by the name behind it.
func variables(environ []string) map[string]string {
	vars := map[string]string{}
	for _, entry := range environ {
		name, value, ok := strings.Cut(entry, "=")
		if name, isOurs := strings.CutPrefix(name, envPrefix); ok && isOurs {
			vars[name] = value
		}
	}
	return vars
}

// schema is which names exist behind envPrefix; those of gateways behind UPSTREAMS_<n>_.
type schema struct {
	known, knownUpstream   []string // live now
	secret, secretUpstream []string // those of the above that X_FILE can hold
}

func newSchema() schema {
	s := schema{}
	for _, f := range fields(&Config{}, "") {
		s.known = append(s.known, f.name)
		// ACCOUNTS_FILE is a variable by itself: the YAML.
		if f.secret() && f.name != "ACCOUNTS" {
			s.secret = append(s.secret, f.name)
			s.known = append(s.known, f.name+"_FILE")
		}
	}
	for _, f := range fields(&UpstreamConfig{}, "") {
		s.knownUpstream = append(s.knownUpstream, f.name)
		if f.secret() {
			s.secretUpstream = append(s.secretUpstream, f.name)
			s.knownUpstream = append(s.knownUpstream, f.name+"_FILE")
		}
	}
	return s
}

// upstreamName splits UPSTREAMS_<n>_<rest>; ok only for a number written the one way.
func upstreamName(name string) (n int, rest string, ok bool) {
	number, isUpstream := strings.CutPrefix(name, "UPSTREAMS_")
	number, rest, hasRest := strings.Cut(number, "_")
	n, err := strconv.Atoi(number)
	ok = isUpstream && hasRest && err == nil && n >= 0 && strconv.Itoa(n) == number
	return n, rest, ok
}

func upstreamPrefix(n int) string { return fmt.Sprintf("UPSTREAMS_%d_", n) }

// checkNames reports variables that do not exist. Those set to nothing must exist too.
func checkNames(vars map[string]string, p *problems) {
	s := newSchema()
	for _, name := range sortedKeys(vars) {
		known, own := s.known, name
		if _, rest, ok := upstreamName(name); ok {
			known, own = s.knownUpstream, rest
		}
		if !slices.Contains(known, own) && !kubernetes(name, vars[name]) {
			p.addf(name, "unknown variable; did you mean %s%s?", envPrefix, s.nearest(name))
		}
	}
}

// kubernetesName matches what Kubernetes injects for the port of a Service that is called maskrelay or maskrelay-something.
var kubernetesName = regexp.MustCompile(`^(?:[A-Z0-9_]+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)$`)

func kubernetes(name, value string) bool {
	if kubernetesName.MatchString(name) {
		return true
	}
	return (name == "PORT" || strings.HasSuffix(name, "_PORT")) && strings.Contains(value, "://")
}

// nearest is the existing name that ends in name, or else is the fewest edits away from it, the
// first in the alphabet of several; names of gateways keep their number.
func (s schema) nearest(name string) string {
	n, _, ok := upstreamName(name)
	if !ok {
		n = 0
	}
	candidates := slices.Clone(s.known)
	for _, rest := range s.knownUpstream {
		candidates = append(candidates, upstreamPrefix(n)+rest)
	}
	slices.Sort(candidates)
	if inFile, ok := strings.CutSuffix(name, "_FILE"); ok && slices.Contains(candidates, inFile) {
		return inFile // it takes no file
	}
	if len(name) > 256 {
		name = name[:256]
	}
	// QUOTA is more likely USER_QUOTA cut short than AUTH misspelt.
	cut := func(known string) bool { return name != "" && strings.HasSuffix(known, "_"+name) }
	if i := slices.IndexFunc(candidates, cut); i >= 0 {
		return candidates[i]
	}
	return slices.MinFunc(candidates, func(a, b string) int {
		return levenshtein.ComputeDistance(name, a) - levenshtein.ComputeDistance(name, b)
	})
}

// readSecretFiles puts the content of every X_FILE into vars as X and returns which file each X came from.
func readSecretFiles(vars map[string]string, p *problems) map[string]string {
	s := newSchema()
	files := map[string]string{}
	for _, fileName := range sortedKeys(vars) {
		name, isFile := strings.CutSuffix(fileName, "_FILE")
		secrets, own := s.secret, name
		if _, rest, ok := upstreamName(name); ok {
			secrets, own = s.secretUpstream, rest
		}
		if !isFile || !slices.Contains(secrets, own) {
			continue
		}
		path := vars[fileName]
		delete(vars, fileName)
		if _, both := vars[name]; both {
			p.addf(fileName, "%s%s is set too; keep one of the two", envPrefix, name)
			continue
		}
		value, err := readSecretFile(path)
		if err != nil {
			p.add(fileName, err)
			p.mark(name)
			continue
		}
		vars[name], files[name] = value, path
	}
	return files
}

func readSecretFile(path string) (string, error) {
	data, err := readFile(path, maxSecretFile)
	if err != nil {
		return "", err
	}
	value := trimNewline(string(data))
	if value == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return value, nil
}

// readFile is [os.ReadFile] with a bound, in bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s holds more than %d bytes", path, limit)
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

// trimNewline removes the one newline that editors and echo put at the end.
func trimNewline(s string) string {
	return strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
