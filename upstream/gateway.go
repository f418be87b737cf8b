package upstream

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"maskrelay/upstream/vendor"
)

// Schemes of a gateway URL.
const (
	SchemeHTTP   = "http"   // CONNECT over plain TCP
	SchemeHTTPS  = "https"  // CONNECT over verified TLS
	SchemeSOCKS5 = "socks5" // SOCKS version 5 over plain TCP (RFC 1928); socks5h is the same
	SchemeDirect = "direct" // no gateway: the relay dials targets itself
)

// Direct is the URL of the gateway that is none.
const Direct = "direct://"

// maxCAFile bounds a CA file, in bytes.
const maxCAFile = 1 << 20

// GatewayConfig is one gateway as the operator writes it.
type GatewayConfig struct {
	Name string // default: the host
	Pool string // "" = DefaultPool; [A-Za-z0-9_.]{1,32}
	// URL is scheme://[user:password@]host:port, or direct://. Empty = the preset's own
	// gateway; host and port may be left out for the preset's, as in socks5://.
	URL    string
	Vendor string // a preset's name; "" = generic
	// Username and Password override the URL's, if not empty. With a brace they are
	// templates (see package vendor), which take {login} and {password} from the URL;
	// otherwise they are taken as they are, and with a preset they are what its
	// templates call {login} and {password}.
	Username string
	Password string
	// SessionKey keys the hash that vendors see in the place of customers' session ids;
	// empty = derived from the login and the password.
	SessionKey []byte
	Warm       int    // TLS connections kept ready; 0 = none; for https
	Weight     int    // share of the traffic; 0 = 1
	MaxConns   int    // connections held at once; 0 = no limit
	CAFile     string // PEM roots for https; empty = the system's
}

// String hides what is secret.
func (GatewayConfig) String() string { return "[redacted]" }

// GoString hides what is secret.
func (GatewayConfig) GoString() string { return "[redacted]" }

// MarshalText hides what is secret.
func (GatewayConfig) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// Gateway is one parsed vendor gateway. It is immutable; copies share the roots.
type Gateway struct {
	Name     string
	Pool     string // never empty
	Scheme   string
	Host     string // name or address literal, without brackets; empty for direct
	Port     string
	Weight   int            // at least 1
	MaxConns int            // 0 = no limit
	Warm     int            // TLS connections kept ready
	Vendor   *vendor.Preset // never nil

	username string // the operator's own at the vendor
	password string
	// templates of the operator's own; empty = the preset's
	usernameTemplate, passwordTemplate string
	logins                             *vendor.Logins // nil for direct
	roots                              *x509.CertPool
}

// maxWarm bounds the connections that a gateway keeps ready.
const maxWarm = 1000

// minEcho is the length in bytes from which a secret is looked for in answers.
const minEcho = 8

// maxSOCKSCredential is the longest username or password in bytes (RFC 1929 §2).
const maxSOCKSCredential = 255

// ParseGateway validates c. In the URL's user information a percent sign followed
// by two hex digits is an escape if every percent sign is one; otherwise, and
// always in Username and Password, every byte stands for itself, so that passwords
// with ':', '@', '%' and spaces survive. Errors never show a credential. An unknown
// preset is an error that wraps [vendor.ErrUnknown], a wrong template a
// [*vendor.TemplateError], which says whether it is the username's or the password's;
// what is wrong with another field than the URL is a [*FieldError].
func ParseGateway(c GatewayConfig) (Gateway, error) {
	g := Gateway{
		Name: c.Name, Pool: cmp.Or(c.Pool, DefaultPool), Warm: c.Warm,
		Weight: cmp.Or(c.Weight, 1), MaxConns: c.MaxConns,
	}
	if err := g.checkNumbers(); err != nil {
		return Gateway{}, err
	}
	if err := CheckPool(g.Pool); err != nil {
		return Gateway{}, err
	}
	preset, err := vendor.Load(c.Vendor)
	if err != nil {
		return Gateway{}, err
	}
	g.Vendor = preset
	if c.URL == Direct {
		return parseDirect(g, c)
	}
	if err := g.parseURL(c.URL); err != nil {
		return Gateway{}, err
	}
	if g.Warm > 0 && g.Scheme != SchemeHTTPS {
		return Gateway{}, wrongField("Warm", "connections are kept ready for https:// gateways only")
	}
	if err := g.makeLogins(c); err != nil {
		return Gateway{}, err
	}
	g.Name = cmp.Or(g.Name, g.Host)
	if err := checkName(g.Name); err != nil {
		return Gateway{}, err
	}
	return g, g.loadRoots(c.CAFile)
}

func (g *Gateway) checkNumbers() error {
	switch {
	case g.Weight < 0 || g.Weight > 1000:
		return wrongField("Weight", "weight %d is not between 1 and 1000", g.Weight)
	case g.MaxConns < 0:
		return wrongField("MaxConns", "the connection limit is negative")
	case g.Warm < 0 || g.Warm > maxWarm:
		return wrongField("Warm", "%d is not between 0 and %d", g.Warm, maxWarm)
	case g.MaxConns > 0 && g.Warm > g.MaxConns:
		return wrongField("Warm", "%d connections kept ready are more than the limit of %d", g.Warm, g.MaxConns)
	default:
		return nil
	}
}

// makeLogins sets up how the gateway's logins are made.
func (g *Gateway) makeLogins(c GatewayConfig) (err error) {
	if isTemplate(c.Username) {
		g.usernameTemplate = c.Username
	} else if c.Username != "" {
		g.username = c.Username
	}
	if isTemplate(c.Password) {
		g.passwordTemplate = c.Password
	} else if c.Password != "" {
		g.password = c.Password
	}
	if err := g.checkCredentials(); err != nil {
		return err
	}
	g.logins, err = vendor.NewLogins(vendor.LoginConfig{
		Preset: g.Vendor, SessionKey: c.SessionKey, Login: g.username, Password: g.password,
		UsernameTemplate: g.usernameTemplate, PasswordTemplate: g.passwordTemplate, Colons: g.Scheme == SchemeSOCKS5,
	})
	if err != nil {
		return err
	}
	switch username, password := g.logins.Make("", vendor.Params{}); {
	case username == "" && g.HasCredentials():
		if !strings.Contains(g.usernameTemplate, "{login}") {
			return wrongField("Username", "the template makes no login for customers who ask for nothing; write {login} or words of its own into it")
		}
		return errors.New("the username's template makes no login by itself; if it has {login}, that comes from the URL, http://login:password@host:port")
	case g.Scheme == SchemeSOCKS5 && max(len(username), len(password)) > maxSOCKSCredential:
		return errors.New("the templates make a username or password of more than 255 bytes, which socks5:// cannot carry (RFC 1929 §2)")
	}
	return nil
}

func isTemplate(s string) bool { return strings.ContainsAny(s, "{}") }

func parseDirect(g Gateway, c GatewayConfig) (Gateway, error) {
	switch {
	case c.Username != "":
		return Gateway{}, wrongField("Username", "direct:// takes no credentials")
	case c.Password != "":
		return Gateway{}, wrongField("Password", "direct:// takes no credentials")
	case c.CAFile != "":
		return Gateway{}, wrongField("CAFile", "direct:// takes no CA file")
	case g.Vendor.Name != vendor.Generic:
		return Gateway{}, wrongField("Vendor", "direct:// takes no vendor")
	case g.Warm > 0:
		return Gateway{}, wrongField("Warm", "direct:// keeps no connections ready")
	}
	g.Scheme = SchemeDirect
	g.Name = cmp.Or(g.Name, SchemeDirect)
	return g, checkName(g.Name)
}

// parseURL splits by hand: net/url refuses the very passwords that vendors hand out.
func (g *Gateway) parseURL(raw string) error {
	if raw == "" {
		return g.usePreset(SchemeHTTP, SchemeHTTPS, SchemeSOCKS5)
	}
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return errors.New("not a URL; write http://user:password@host:port")
	}
	switch scheme = strings.ToLower(scheme); scheme {
	case SchemeHTTP, SchemeHTTPS, SchemeSOCKS5:
		g.Scheme = scheme
	case "socks5h":
		g.Scheme = SchemeSOCKS5
	case SchemeDirect:
		return errors.New("direct:// takes no host")
	default:
		return errors.New("the scheme is not http, https, socks5 or direct")
	}
	authority := rest
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		authority = rest[i+1:]
		g.username, g.password = splitUserinfo(rest[:i])
	}
	authority = strings.TrimSuffix(authority, "/")
	if authority == "" {
		return g.usePreset(g.Scheme)
	}
	return g.parseAuthority(authority)
}

// usePreset takes the preset's own gateway for the first scheme that it has one for.
func (g *Gateway) usePreset(schemes ...string) error {
	for _, scheme := range schemes {
		if _, authority, ok := strings.Cut(g.Vendor.DefaultURL(scheme), "://"); ok {
			g.Scheme = scheme
			return g.parseAuthority(authority)
		}
	}
	switch {
	case g.Vendor.Name == vendor.Generic:
		return errors.New("the host is missing; write http://user:password@host:port")
	case len(schemes) > 1:
		return fmt.Errorf("vendor %s has no gateway of its own; write http://host:port", g.Vendor.Name)
	default:
		return fmt.Errorf("vendor %s has no %s gateway of its own; write %s://host:port", g.Vendor.Name, g.Scheme, g.Scheme)
	}
}

// parseAuthority takes host:port.
func (g *Gateway) parseAuthority(authority string) error {
	if strings.ContainsAny(authority, "/?#") {
		return errors.New("a gateway has no path; write scheme://host:port")
	}
	host, port, err := net.SplitHostPort(authority)
	if parts := strings.Split(authority, ":"); len(parts) == 4 && validHost(parts[0]) {
		return errors.New("that is host:port:user:password; write scheme://user:password@host:port")
	}
	if err != nil {
		return errors.New("the port is missing; write scheme://host:port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("the port is not between 1 and 65535")
	}
	if !validHost(host) {
		return errors.New("the host is neither a name nor an address")
	}
	g.Host, g.Port = host, port
	return g.checkVendor()
}

// checkVendor finds a gateway whose host is another vendor's than its preset, or whose
// port is the vendor's for another scheme: what the preset knows would all be wrong.
func (g *Gateway) checkVendor() error {
	if g.Vendor.Name == vendor.Generic {
		return nil
	}
	if own := vendor.OfHost(g.Host); own != "" && own != g.Vendor.Name {
		return fmt.Errorf("the host is a gateway of the vendor %s, and the preset is %s", own, g.Vendor.Name)
	}
	if g.Vendor.DefaultURL(g.Scheme) == "" {
		return nil // who knows what else speaks it
	}
	wrong := ""
	for _, scheme := range [...]string{SchemeHTTP, SchemeHTTPS, SchemeSOCKS5} {
		switch {
		case !strings.EqualFold(g.Vendor.DefaultURL(scheme), scheme+"://"+g.Address()):
		case scheme == g.Scheme:
			return nil
		default:
			wrong = scheme
		}
	}
	if wrong != "" {
		return fmt.Errorf("the port is the vendor's for %s://", wrong)
	}
	return nil
}

func splitUserinfo(s string) (username, password string) {
	username, password, _ = strings.Cut(s, ":")
	return unescape(username), unescape(password)
}

func unescape(s string) string {
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}

func (g *Gateway) checkCredentials() error {
	long := max(len(g.username), len(g.password)) > maxSOCKSCredential
	switch {
	case strings.Contains(g.username, ":"):
		return errors.New("a username cannot contain a colon (RFC 7617 §2)")
	case !g.HasCredentials() && (g.password != "" || g.passwordTemplate != ""):
		return wrongField("Password", "a password without a username")
	case hasControl(g.username) || hasControl(g.password):
		return errors.New("the credentials contain a control byte (RFC 7617 §2)")
	case g.Scheme == SchemeSOCKS5 && long:
		return errors.New("a username or password for socks5:// is at most 255 bytes long (RFC 1929 §2)")
	default:
		return nil
	}
}

func checkName(name string) error {
	if len(name) > 128 || !utf8.ValidString(name) || hasControl(name) || strings.ContainsAny(name, " \"") {
		return errors.New("the name is longer than 128 bytes, not UTF-8, or contains spaces, quotes or control bytes")
	}
	return nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

func validHost(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Zone() == ""
	}
	if host == "" || len(host) > 253 {
		return false
	}
	for i := range len(host) {
		c := host[i]
		if c != '-' && c != '.' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

func (g *Gateway) loadRoots(file string) error {
	if file == "" {
		return nil
	}
	if g.Scheme != SchemeHTTPS {
		return wrongField("CAFile", "a CA file is for https:// gateways")
	}
	info, err := os.Stat(file)
	if err != nil {
		return wrongField("CAFile", "CA file: %w", err)
	}
	if info.Size() > maxCAFile {
		return wrongField("CAFile", "CA file: larger than %d bytes", maxCAFile)
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return wrongField("CAFile", "CA file: %w", err)
	}
	g.roots = x509.NewCertPool()
	if !g.roots.AppendCertsFromPEM(pem) {
		return wrongField("CAFile", "CA file: no certificate in %s", file)
	}
	return nil
}

// HasCredentials reports whether the gateway has a login of the operator's, be it in a
// template of his.
func (g Gateway) HasCredentials() bool { return g.username != "" || g.usernameTemplate != "" }

// HasPassword reports whether a password is sent with the login.
func (g Gateway) HasPassword() bool { return g.password != "" || g.passwordTemplate != "" }

// Secrets returns what must never be seen outside: the operator's password, and password
// and Proxy-Authorization token of the login of those who ask for nothing. Empty without
// credentials.
func (g Gateway) Secrets() []string {
	if !g.HasCredentials() {
		return nil
	}
	username, password := g.logins.Make("", vendor.Params{})
	secrets := []string{g.password, password, strings.TrimPrefix(basic(username, password), "Basic ")}
	slices.Sort(secrets)
	return slices.DeleteFunc(slices.Compact(secrets), func(s string) bool { return s == "" })
}

// Echoes are what of the login a gateway could repeat and customers must not see: Secrets,
// the username, and names in it. What is so short, or such a plain word, that it would be found
// in innocent text is not among them.
func (g Gateway) Echoes() []string {
	if !g.HasCredentials() {
		return nil
	}
	username, _ := g.logins.Make("", vendor.Params{})
	echoes := slices.DeleteFunc(g.Secrets(), func(s string) bool { return len(s) < minEcho || strings.TrimSpace(s) != s })
	if telling(username) {
		echoes = append(echoes, username)
	}
	for _, name := range strings.FieldsFunc(username, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		if len(name) >= minPart && strings.ContainsFunc(name, unicode.IsDigit) && strings.ContainsFunc(name, unicode.IsLetter) {
			echoes = append(echoes, name)
		}
	}
	return echoes
}

// Address is host:port, with brackets where they belong; empty for direct.
func (g Gateway) Address() string {
	if g.Scheme == SchemeDirect {
		return ""
	}
	return net.JoinHostPort(g.Host, g.Port)
}

// String is the URL without credentials.
func (g Gateway) String() string {
	switch {
	case g.Scheme == SchemeDirect:
		return Direct
	case g.HasCredentials():
		return g.Scheme + "://***@" + g.Address()
	default:
		return g.Scheme + "://" + g.Address()
	}
}

// GoString is String, for %#v.
func (g Gateway) GoString() string { return g.String() }

// authorization is the Proxy-Authorization value, empty without credentials.
func (g Gateway) authorization() string {
	if !g.HasCredentials() {
		return ""
	}
	return basic(g.logins.Make("", vendor.Params{}))
}
