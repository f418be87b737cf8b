package vendor

import (
	"fmt"
	"strings"
	"time"
)

// LoginConfig is how the logins of one gateway are made.
type LoginConfig struct {
	Preset *Preset // nil = generic
	// Login and Password are the operator's own at the vendor: {login} and {password}.
	Login, Password string
	// UsernameTemplate and PasswordTemplate replace the preset's; empty = the preset's.
	UsernameTemplate, PasswordTemplate string
	// SessionKey keys the hash that stands for a customer's session; empty = derived
	// from Password and Login, the same on every relay.
	SessionKey []byte
	// Colons lets the login hold ":", as SOCKS5 does (RFC 1929) and Basic does not (RFC 7617 §2).
	Colons bool
}

// String hides what is secret.
func (LoginConfig) String() string { return "[redacted]" }

// GoString hides what is secret.
func (LoginConfig) GoString() string { return "[redacted]" }

// TemplateError says where a template is wrong. It shows no credential.
type TemplateError struct {
	Password bool // it is the password's template, else the username's
	Pos      int  // byte offset, from 1
	Problem  string
}

func (e *TemplateError) Error() string {
	which := "username"
	if e.Password {
		which = "password"
	}
	return fmt.Sprintf("%s template, position %d: %s", which, e.Pos, e.Problem)
}

// Logins makes the logins of one gateway. It is immutable and safe for concurrent use.
type Logins struct {
	preset    *Preset
	operators [2]string // the operator's own login and password
	templates [2][]node // of the username and of the password
	// served are the keys that end up in a login, or in the port, by the set of keys that
	// are given; ever are those of any set.
	served [1 << vendorKeys]keySet
	ever   keySet
	// ttlStep is what a lifetime must be a multiple of, ttlUnits whether it is written in
	// the preset's units.
	ttlStep  time.Duration
	ttlUnits bool
	fixed    [2]bool   // the template holds nothing of the customer's
	plain    [2]string // what is rendered without parameters
	hasher   hasher
}

// String hides what is secret.
func (*Logins) String() string { return "[redacted]" }

// GoString hides what is secret.
func (*Logins) GoString() string { return "[redacted]" }

// NewLogins checks the templates. The error is a *[TemplateError]. Without a Login,
// templates that need one make no login at all: the vendor knows this host by its address.
func NewLogins(c LoginConfig) (*Logins, error) {
	if c.Preset == nil {
		generic, err := Load(Generic)
		if err != nil {
			return nil, err
		}
		c.Preset = generic
	}
	l := &Logins{preset: c.Preset, ttlStep: time.Second}
	l.operators = [2]string{strings.TrimPrefix(c.Login, c.Preset.spec.LoginPrefix), c.Password}
	l.hasher.key = sessionKey(&c)
	for i, own := range []string{c.UsernameTemplate, c.PasswordTemplate} {
		l.templates[i] = c.Preset.templates[i]
		if own == "" {
			continue
		}
		tree, err := parseTemplate(own, i == 1)
		if err != nil {
			return nil, err
		}
		l.templates[i] = tree
	}
	if err := l.checkOperators(c.Colons); err != nil {
		return nil, err
	}
	l.learn()
	return l, nil
}

// checkOperators looks for what no credentials can hold, and drops the templates if
// there is no login to put into them.
func (l *Logins) checkOperators(colons bool) error {
	var err *TemplateError
	bare := false
	for i, tree := range l.templates {
		fields(tree, func(n *node) {
			if n.kind != nodeField || n.field.key() >= 0 || err != nil {
				return
			}
			value := l.operators[n.field-fieldLogin]
			bare = bare || n.field == fieldLogin && value == ""
			switch {
			case i == 0 && !colons && strings.Contains(value, ":"):
				err = &TemplateError{Pos: n.pos, Problem: "the value of this field holds ':', which a username cannot"}
			case !all(value, func(c byte) bool { return c >= 0x20 && c != 0x7f }):
				err = &TemplateError{Password: i == 1, Pos: n.pos, Problem: "the value of this field holds a control character"}
			}
		})
	}
	if err != nil {
		return err
	}
	if bare {
		l.templates = [2][]node{}
	}
	return nil
}

// learn works out what the templates serve.
func (l *Logins) learn() {
	for given := range keySet(1 << vendorKeys) {
		var served keySet
		if l.preset.spec.SessionPorts != nil {
			served = 1 << iSession
		}
		for _, tree := range l.templates {
			walk(tree, given, func(n *node) {
				if n.kind == nodeField && n.field.key() >= 0 {
					served |= 1 << n.field.key()
				}
			})
		}
		l.served[given] = served & given
		l.ever |= l.served[given]
	}
	for i, tree := range l.templates {
		l.fixed[i] = true
		fields(tree, func(n *node) {
			l.fixed[i] = l.fixed[i] && n.kind == nodeField && n.field.key() < 0
			switch {
			case n.kind != nodeField:
			case n.field == fieldTTL:
				l.ttlUnits = true
			case n.field == fieldTTLMinutes:
				l.ttlStep = max(l.ttlStep, time.Minute)
			case n.field == fieldTTLHours:
				l.ttlStep = max(l.ttlStep, time.Hour)
			}
		})
	}
	for i := range l.plain {
		l.plain[i] = l.render(i, &login{params: &Params{}})
	}
}

// fields calls f for each field and each condition of a tree.
func fields(list []node, f func(*node)) {
	for i := range list {
		if n := &list[i]; n.kind != nodeText {
			f(n)
			fields(n.body, f)
		}
	}
}

// Keys returns what customers may ask of this vendor, in the order of [Keys].
func (l *Logins) Keys() []Key {
	var keys []Key
	for i := range vendorKeys {
		if l.ever.has(i) {
			keys = append(keys, keyNames[i])
		}
	}
	return keys
}

// Fault says what of p this vendor cannot do, nil if it can do all.
func (l *Logins) Fault(p Params) *Fault {
	given := p.given()
	if given == 0 {
		return nil
	}
	for i := range vendorKeys {
		if !given.has(i) {
			continue
		}
		if !l.ever.has(i) {
			return &Fault{Kind: Unavailable, Key: keyNames[i]}
		}
		if i < iSession {
			if fault := l.preset.fields[i].fault(i, &p, given); fault != nil {
				return fault
			}
		}
		if !l.served[given].has(i) {
			return l.unserved(i, given)
		}
	}
	if given.has(iTTL) && !l.takesTTL(p.TTL) {
		return &Fault{Kind: Invalid, Key: TTL}
	}
	return nil
}

// unserved says why the key of index i ends up in no login although others have it.
func (l *Logins) unserved(i int, given keySet) *Fault {
	for o := range vendorKeys {
		if !given.has(o) && l.served[given|1<<o].has(i) {
			return needs(i, 1<<o)
		}
	}
	for o := range vendorKeys {
		if o != i && given.has(o) && l.served[given&^(1<<o)].has(i) {
			return excludes(i, o)
		}
	}
	// It takes two or more others: name one that is missing where it is served.
	for set, served := range l.served {
		if keySet(set)&given == given && served.has(i) {
			return needs(i, keySet(set)&^given)
		}
	}
	return &Fault{Kind: Unavailable, Key: keyNames[i]}
}

func (l *Logins) takesTTL(d time.Duration) bool {
	rule := &l.preset.ttl
	if d%l.ttlStep != 0 || d < rule.min || d > rule.max {
		return false
	}
	if !l.ttlUnits {
		return true
	}
	u, _ := rule.find(d)
	return u != nil
}

// Make returns the login for an account's p, for which Fault must have found nothing.
// The account's name goes into the hash of the session and nowhere else.
func (l *Logins) Make(account string, p Params) (username, password string) {
	if p.given() == 0 {
		return l.plain[0], l.plain[1]
	}
	r := login{account: account, params: &p, given: p.given()}
	username, password = l.plain[0], l.plain[1]
	if !l.fixed[0] {
		username = l.render(0, &r)
	}
	if !l.fixed[1] {
		password = l.render(1, &r)
	}
	return username, password
}

// Port is the gateway's port for a session, where the vendor keeps sessions by port;
// ok is false where it does not, or p has none. It takes the place of any other port.
func (l *Logins) Port(account string, p Params) (port uint16, ok bool) {
	ports := l.preset.spec.SessionPorts
	if ports == nil || p.Session == "" {
		return 0, false
	}
	return l.hasher.port(*ports, l.preset.session.geo, account, &p), true
}

// login is what one login is made of.
type login struct {
	account string
	params  *Params
	given   keySet
	session [maxID]byte // the vendor's id, once it is known
	hashed  int         // bytes of session
}

func (l *Logins) render(i int, r *login) string {
	var buf [256]byte
	return string(l.append(buf[:0], l.templates[i], r))
}

func (l *Logins) append(dst []byte, list []node, r *login) []byte {
	for i := range list {
		switch n := &list[i]; n.kind {
		case nodeText:
			dst = append(dst, n.text...)
		case nodeField:
			dst = l.appendField(dst, n.field, r)
		default:
			if r.given.has(n.key) == (n.kind == nodeGiven) {
				dst = l.append(dst, n.body, r)
			}
		}
	}
	return dst
}

func (l *Logins) appendField(dst []byte, f field, r *login) []byte {
	k := f.key()
	switch {
	case k < 0:
		return append(dst, l.operators[f-fieldLogin]...)
	case !r.given.has(k):
		return dst
	case k == iSession:
		if r.hashed == 0 {
			r.hashed = len(l.hasher.id(r.session[:0], &l.preset.session, r.account, r.params))
		}
		return append(dst, r.session[:r.hashed]...)
	case k == iTTL:
		return l.appendTTL(dst, f, r.params.TTL)
	default:
		return l.preset.fields[k].append(dst, r.params.at(k), r.params.Country)
	}
}

func (l *Logins) appendTTL(dst []byte, f field, d time.Duration) []byte {
	switch f {
	case fieldTTLSeconds:
		return appendUnits(dst, d, time.Second)
	case fieldTTLMinutes:
		return appendUnits(dst, d, time.Minute)
	case fieldTTLHours:
		return appendUnits(dst, d, time.Hour)
	default:
		return l.preset.ttl.append(dst, d)
	}
}
