package account

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// maxJSON bounds the JSON of one account: hundreds of networks and more.
const maxJSON = 64 << 10

var (
	errNotJSON   = errors.New("account: not valid JSON")
	errNotObject = errors.New("account: must be a JSON object")
)

// ParseJSON reads one account of the shape that it has in the file, as JSON. It is as
// strict: unknown and repeated keys, wrong types and bad values are errors, and so is
// more than 64 KB. A password is not required; see [Account.HasPassword]. The account
// is called name: the data may say so too, and must if name is empty. On any error
// there is no account. All problems are returned at once, by errors.Join, in the order
// of the keys; none quotes a password.
func ParseJSON(name string, data []byte) (*Account, error) {
	fields, problems := jsonFields(data)
	if fields == nil {
		return nil, errors.Join(problems...)
	}
	a := &Account{}
	report := func(key, text string) { problems = append(problems, errors.New("account: "+key+": "+text)) }
	if name != "" {
		if text := nameProblem(name); text != "" {
			report("name", text)
		}
	}
	for _, key := range accountKeys() {
		raw, ok := fields[key]
		l, isList := listOf(key)
		switch {
		case ok && isList:
			for _, text := range a.jsonList(l, raw) {
				report(key, text)
			}
		case ok:
			if text := a.set(key, jsonValue(raw)); text != "" {
				report(key, text)
			} else if key == "name" && name != "" && a.Name != name {
				report(key, "is that of another account")
			}
		case key == "name" && name == "":
			report(key, "is missing")
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	if name != "" {
		a.Name = strings.Clone(name)
	}
	return a, nil
}

// jsonFields returns the values of an object by their keys, and what is wrong with the
// keys. Without an object there are no fields at all.
func jsonFields(data []byte) (map[string]json.RawMessage, []error) {
	if len(data) > maxJSON {
		return nil, []error{fmt.Errorf("account: larger than %d bytes", maxJSON)}
	}
	// The decoder would put other characters in the place of bad ones.
	if !utf8.Valid(data) || !json.Valid(data) {
		return nil, []error{errNotJSON}
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	if t, err := decoder.Token(); err != nil || t != json.Delim('{') {
		return nil, []error{errNotObject}
	}
	known := accountKeys()
	fields := make(map[string]json.RawMessage)
	var problems []error
	for decoder.More() {
		t, err := decoder.Token()
		key, ok := t.(string)
		var raw json.RawMessage
		if err == nil && ok {
			err = decoder.Decode(&raw)
		}
		switch {
		case err != nil || !ok:
			return nil, []error{errNotJSON}
		case len(problems) == maxProblems:
			return nil, append(problems, errors.New("account: and more problems"))
		case !slices.Contains(known, key):
			problems = append(problems, errors.New("account: "+unknownKey(key, known)))
		case fields[key] != nil:
			problems = append(problems, errors.New("account: "+key+" is given twice"))
		default:
			fields[key] = raw
		}
	}
	return fields, problems
}

// jsonValue returns what a value says. It is valid JSON.
func jsonValue(raw json.RawMessage) value {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	switch raw[0] {
	case 'n':
		return value{kind: kindNull}
	case 't', 'f':
		return value{kindBool, string(raw)}
	case '[':
		return value{kind: kindList}
	case '{':
		return value{}
	case '"':
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return value{}
		}
		return value{kindString, s}
	}
	if bytes.ContainsAny(raw, ".eE") {
		return value{kindFloat, string(raw)}
	}
	return value{kindInteger, string(raw)}
}

// jsonList reads a list into a, and returns the problem of each element by itself.
func (a *Account) jsonList(l list, raw json.RawMessage) (problems []string) {
	if v := jsonValue(raw); v.kind != kindList {
		return []string{v.problem(l.want)}
	}
	var elements []json.RawMessage
	if json.Unmarshal(raw, &elements) != nil {
		return []string{l.want}
	}
	if text := l.problem(len(elements)); text != "" {
		return []string{text}
	}
	for i, element := range elements {
		text := l.add(a, jsonValue(element))
		switch {
		case text == "":
		case len(problems) == maxProblems:
			return append(problems, "and more problems")
		default:
			problems = append(problems, fmt.Sprintf("element %d %s", i+1, text))
		}
	}
	return problems
}

// shape is an account as it is written. What is left out is the default.
type shape struct {
	Name        string         `json:"name"`
	Password    string         `json:"password,omitempty"`
	MaxConns    int            `json:"max_conns,omitempty"`
	ConnRate    float64        `json:"conn_rate,omitempty"`
	ConnBurst   int            `json:"conn_burst,omitempty"`
	Bandwidth   string         `json:"bandwidth,omitempty"`
	Quota       string         `json:"quota,omitempty"`
	QuotaPeriod string         `json:"quota_period,omitempty"`
	MaxIPs      int            `json:"max_ips,omitempty"`
	Weight      int            `json:"weight,omitempty"`
	Expires     string         `json:"expires,omitempty"`
	AllowFrom   []netip.Prefix `json:"allow_from,omitempty"`
	Pool        string         `json:"pool,omitempty"`
	Pools       []string       `json:"pools,omitempty"`
	Disabled    bool           `json:"disabled,omitempty"`
}

func (a *Account) shape() shape {
	s := shape{
		Name: a.Name, MaxConns: a.MaxConns, ConnRate: a.ConnRate, ConnBurst: a.ConnBurst,
		QuotaPeriod: a.QuotaPeriod, MaxIPs: a.MaxIPs, Weight: a.Weight,
		AllowFrom: a.AllowFrom, Pool: a.Pool, Pools: a.Pools, Disabled: a.Disabled,
	}
	if !a.Expires.IsZero() {
		s.Expires = a.Expires.Format(time.RFC3339Nano) // in its own zone: UTC's year can have five digits
	}
	if a.Bandwidth > 0 {
		s.Bandwidth = FormatSize(a.Bandwidth)
	}
	if a.Quota > 0 {
		s.Quota = FormatSize(a.Quota)
	}
	return s
}

// write returns the JSON of s on one line. Whatever was parsed can be written.
func (s shape) write() []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(s); err != nil {
		panic("account: " + err.Error())
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

// JSON returns the account as one line of JSON that [ParseJSON] reads, without its
// password. Sizes are written as in the file, and what is the default is left out.
func (a *Account) JSON() []byte { return a.shape().write() }

// StoredJSON is JSON with the password, as a bcrypt hash: for a store that keeps
// accounts, and for nobody's eyes. A password that is plain text is hashed first, which
// takes some 50 ms of one processor each time; see [Hash] for those that cannot be.
// Without a password the JSON has none.
func (a *Account) StoredJSON() ([]byte, error) {
	s := a.shape()
	switch {
	case a.password == nil:
	case a.password.bcrypt:
		s.Password = *a.password.text
	default:
		hash, err := Hash(*a.password.text)
		if err != nil {
			return nil, fmt.Errorf("%w (account %q)", err, a.Name)
		}
		s.Password = hash
	}
	return s.write(), nil
}
