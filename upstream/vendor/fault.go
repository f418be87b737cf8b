package vendor

// FaultKind is what is wrong with a parameter, from a closed set.
type FaultKind string

// The kinds.
const (
	Malformed   FaultKind = "malformed"   // not pairs of known keys and values; Key is empty
	Twice       FaultKind = "twice"       // the key stands there twice
	Invalid     FaultKind = "invalid"     // the value is not one of that key, or not one that is served
	Unavailable FaultKind = "unavailable" // no gateway of the pool can serve it, or the account may not ask
	Needs       FaultKind = "needs"       // it is served only together with Other
	Excludes    FaultKind = "excludes"    // it is not served together with Other
)

// Fault says why a customer's parameters cannot be served. It holds keys and no values,
// so that its text may be shown to the customer; there are finitely many. Faults are
// comparable, and [Faults] lists every one that this package returns.
type Fault struct {
	Kind       FaultKind
	Key, Other Key // Other only with Needs and Excludes; of two that exclude each other Key is the first in the order of [Keys]
}

// Error is one sentence for the customer. It names no vendor.
func (f *Fault) Error() string {
	key, other := string(f.Key), string(f.Other)
	switch f.Kind {
	case Twice:
		return "The username parameter " + key + " is given twice."
	case Invalid:
		return "The username parameter " + key + " has a value that cannot be used."
	case Unavailable:
		return "The username parameter " + key + " is not available."
	case Needs:
		return "The username parameter " + key + " needs the parameter " + other + "."
	case Excludes:
		return "The username parameters " + key + " and " + other + " cannot be used together."
	default:
		return "The username parameters are not pairs of a known key and a value."
	}
}

// Faults are all that there can be.
func Faults() []Fault {
	faults := []Fault{{Kind: Malformed}}
	for i, k := range keyNames {
		faults = append(faults, Fault{Kind: Twice, Key: k}, Fault{Kind: Invalid, Key: k}, Fault{Kind: Unavailable, Key: k})
		for j, o := range keyNames {
			if i == j || i >= vendorKeys || j >= vendorKeys {
				continue
			}
			faults = append(faults, Fault{Kind: Needs, Key: k, Other: o})
			if i < j {
				faults = append(faults, Fault{Kind: Excludes, Key: k, Other: o})
			}
		}
	}
	return faults
}

// excludes is the fault of two keys, by their indexes.
func excludes(i, j int) *Fault {
	return &Fault{Kind: Excludes, Key: keyNames[min(i, j)], Other: keyNames[max(i, j)]}
}

// needs is the fault of a key that misses others, of which it names the first.
func needs(i int, missing keySet) *Fault {
	return &Fault{Kind: Needs, Key: keyNames[i], Other: keyNames[missing.first()]}
}
