package vendor

import (
	"slices"
	"time"
)

// Spec is a preset as its file says it, presets/NAME.yaml. Unknown keys in a file are
// errors. Everything but name, title and the two templates may be left out.
type Spec struct {
	Name  string `yaml:"name"`  // the file's name
	Title string `yaml:"title"` // for people
	// Sources are the documents that the facts come from, Unverified are sentences that
	// say which facts no document confirms.
	Sources    []string `yaml:"sources"`
	Unverified []string `yaml:"unverified"`

	Gateway GatewaySpec `yaml:"gateway"`
	// SessionPorts are for vendors that keep a session by the gateway's port.
	SessionPorts *PortRange `yaml:"session_ports"`

	// LoginPrefix is what the vendor's dashboard shows before the login and Username adds
	// by itself: an operator who pastes it with the login gets it once.
	LoginPrefix string `yaml:"login_prefix"`
	// Username and Password are templates; see the package's documentation.
	Username string `yaml:"username"`
	Password string `yaml:"password"`

	// Fields are the spellings of country, state, city, zip and asn. Those that the
	// templates name must be here, and no others.
	Fields  map[Key]FieldSpec `yaml:"fields"`
	Session *SessionSpec      `yaml:"session"` // required if a template names {session}
	TTL     *TTLSpec          `yaml:"ttl"`     // required if a template names {ttl}
	Grammar GrammarSpec       `yaml:"grammar"`

	// Classify are the rules that read a refusal. The first that matches decides; without
	// one the status does, see [Preset.Classify].
	Classify []RuleSpec       `yaml:"classify"`
	Advice   map[Cause]string `yaml:"advice"`  // sentences for the operator
	Headers  []string         `yaml:"headers"` // never to a customer, X-Foo-* allowed
	Marks    []string         `yaml:"marks"`   // never to a customer, at least 4 letters

	Limits   LimitSpec     `yaml:"limits"`
	Examples []ExampleSpec `yaml:"examples"`
}

// GatewaySpec is where the vendor's gateway is. A port of 0 means that it does not
// speak that scheme.
type GatewaySpec struct {
	Host   string `yaml:"host"`
	HTTP   uint16 `yaml:"http"`
	HTTPS  uint16 `yaml:"https"`
	SOCKS5 uint16 `yaml:"socks5"`
}

// PortRange is inclusive.
type PortRange struct {
	From uint16 `yaml:"from"`
	To   uint16 `yaml:"to"`
}

// FieldSpec is how a vendor spells a value, and what he takes. Lookup or an alias comes
// first, then Words and Case, then CountryPrefix.
type FieldSpec struct {
	// Lookup replaces a value by a table's: country_names (us → United_States), us_codes
	// (new_york → ny, for states of the US only), us_names (ny, newyork → new_york in the US;
	// other countries' states stay as they are). What the table lacks is refused.
	Lookup string `yaml:"lookup"`
	// Aliases replace single canonical values, in the place of Lookup: {gb: uk}.
	Aliases map[string]string `yaml:"aliases"`
	// Words joins the words of a value, which the canonical form joins by '_'. Not given
	// is "_"; "" writes them together.
	Words *string `yaml:"words"`
	Case  string  `yaml:"case"` // lower (default), upper, title: each word's first letter is upper; keep: as the table has it
	// CountryPrefix, if not empty, puts the lower-case country and this before the value:
	// "_" makes us_california. It implies that the field needs country.
	CountryPrefix string `yaml:"country_prefix"`

	Digits    bool `yaml:"digits"`     // only digits are taken
	MaxLength int  `yaml:"max_length"` // in bytes of the canonical value; 0 = no limit of the vendor

	Needs    []Key            `yaml:"needs"`     // not without these
	NeedsIn  map[string][]Key `yaml:"needs_in"`  // by country: not without these there
	Excludes []Key            `yaml:"excludes"`  // not together with any of these
	Only     []string         `yaml:"countries"` // only with one of these countries; implies needs country
}

// SessionSpec is what the vendor takes as a session's id. Either Charset and Length, or
// Min and Max.
type SessionSpec struct {
	Charset string `yaml:"charset"` // alnum (A-Z a-z 0-9), lower (a-z 0-9), digits, hex
	Length  int    `yaml:"length"`  // 1 to 64
	Min     uint64 `yaml:"min"`     // a decimal number, inclusive
	Max     uint64 `yaml:"max"`
	// Geo makes another session of the same name with another country, state, city, zip or
	// asn, for vendors whose sessions keep their first exit whatever is asked later.
	Geo    bool   `yaml:"geo"`
	Strict string `yaml:"strict"` // the vendor's key for sessions that rather fail than move; documented only
	Note   string `yaml:"note"`
}

// TTLSpec is how a session's lifetime is written.
type TTLSpec struct {
	// Units are tried in order; the first that takes the lifetime as a whole number
	// between its bounds is used. A lifetime that no unit takes is refused.
	Units   []UnitSpec    `yaml:"units"`
	Default time.Duration `yaml:"default"` // the vendor's, if none is given; documented only
	Note    string        `yaml:"note"`
}

// UnitSpec is one unit of lifetimes.
type UnitSpec struct {
	Unit   string `yaml:"unit"` // s, m, h or d
	Min    int64  `yaml:"min"`  // in this unit; 0 = 1
	Max    int64  `yaml:"max"`  // in this unit; required
	Suffix string `yaml:"suffix"`
}

// GrammarSpec describes the login for people and for tests that read logins back.
type GrammarSpec struct {
	In      string         `yaml:"in"`      // username or password
	First   string         `yaml:"first"`   // between the operator's login and the first parameter
	Between string         `yaml:"between"` // between parameters
	Assign  string         `yaml:"assign"`  // between key and value
	Keys    map[Key]string `yaml:"keys"`    // the vendor's names of the keys
	// Positional, if not empty, are the slots of a login without names of keys.
	Positional []string `yaml:"positional"`
}

// RuleSpec reads a refusal. All that is given must match.
type RuleSpec struct {
	Status Statuses `yaml:"status"` // required
	Reason string   `yaml:"reason"` // the reason phrase, any case; a final * matches any rest
	Header string   `yaml:"header"` // a field that must be there
	Match  string   `yaml:"match"`  // what the field must hold, any case; only with Header
	Body   string   `yaml:"body"`   // what the body's beginning must hold, any case
	Cause  Cause    `yaml:"cause"`
	// Own says that targets hardly ever answer so: an answer to a plain request is taken for
	// the gateway's, though nothing but its status tells.
	Own    bool   `yaml:"own"`
	Advice string `yaml:"advice"` // instead of the preset's for this cause
}

// LimitSpec are limits of the vendor's, for people.
type LimitSpec struct {
	Threads      int      `yaml:"threads"`       // connections at once; 0 = none known
	ConnectPorts []uint16 `yaml:"connect_ports"` // target ports that are served; none = no limit known
	Note         string   `yaml:"note"`
}

// ExampleSpec is a documented login. UsernameLike and PasswordLike are regular
// expressions, for what holds the hash of a session.
type ExampleSpec struct {
	Params       string `yaml:"params"` // of the customer
	Login        string `yaml:"login"`
	Password     string `yaml:"password"`
	UsernameLike string `yaml:"username_like"`
	PasswordLike string `yaml:"password_like"`
	Source       string `yaml:"source"`
}

// Statuses are HTTP statuses: a number, a list of numbers, or the word any.
type Statuses struct {
	Any  bool
	List []int
}

// UnmarshalYAML reads the three forms; anything else leaves s empty, which the checks of
// presets refuse with its line.
func (s *Statuses) UnmarshalYAML(decode func(any) error) error {
	var one int
	if err := decode(&one); err == nil {
		s.List = []int{one}
		return nil
	}
	var many []int
	if err := decode(&many); err == nil {
		s.List = many
		return nil
	}
	var word string
	s.Any = decode(&word) == nil && word == "any"
	return nil
}

func (s Statuses) has(status int) bool {
	return s.Any || slices.Contains(s.List, status)
}
