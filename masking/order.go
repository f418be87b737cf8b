package masking

import "cmp"

// CompareCanonical compares http.CanonicalHeaderKey(spelled), for a token, with name, as
// cmp.Compare does. It allocates nothing.
func CompareCanonical[T string | []byte](spelled string, name T) int {
	upper := true
	for i := range min(len(spelled), len(name)) {
		c := spelled[i]
		switch {
		case upper && 'a' <= c && c <= 'z':
			c -= 'a' - 'A'
		case !upper && 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		if c != name[i] {
			return cmp.Compare(c, name[i])
		}
		upper = c == '-'
	}
	return cmp.Compare(len(spelled), len(name))
}
