package account

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
)

// Merge returns the account that a becomes by a JSON merge patch (RFC 7396): keys with
// null go back to their defaults, other keys are set, what is not there stays, also the
// password. It is as strict as [ParseJSON], and its errors are as those are. The name
// can neither change nor go, and the password not go.
func (a *Account) Merge(patch []byte) (*Account, error) {
	fields, problems := jsonFields(patch)
	if fields == nil {
		return nil, errors.Join(problems...)
	}
	var merged map[string]json.RawMessage
	if err := json.Unmarshal(a.JSON(), &merged); err != nil {
		return nil, err
	}
	for _, key := range accountKeys() {
		raw, ok := fields[key]
		switch {
		case !ok:
		case !bytes.Equal(bytes.TrimSpace(raw), []byte("null")):
			merged[key] = raw
		case slices.Contains([]string{"name", "password"}, key):
			problems = append(problems, errors.New("account: "+key+": cannot be removed"))
		default:
			delete(merged, key)
		}
	}
	data, err := json.Marshal(merged)
	if err != nil {
		return nil, err
	}
	b, err := ParseJSON(a.Name, data)
	if err != nil {
		problems = append(problems, err)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	if !b.HasPassword() {
		b = b.WithPasswordOf(a)
	}
	return b, nil
}
