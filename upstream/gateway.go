package upstream

import (
	"cmp"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Schemes of a gateway URL.
const (
	SchemeHTTP   = "http"   // CONNECT over plain TCP
	SchemeHTTPS  = "https"  // CONNECT over verified TLS
	SchemeDirect = "direct" // no gateway: the relay dials targets itself
)

// Direct is the URL of the gateway that is none.
const Direct = "direct://"

// maxCAFile bounds a CA file, in bytes.
const maxCAFile = 1 << 20

// GatewayConfig is one gateway as the operator writes it.
type GatewayConfig struct {
	Name     string // default: the host
	URL      string // scheme://[user:password@]host:port, or direct://
	Username string // taken as it is; overrides the URL's, if not empty
	Password string // likewise
	Weight   int    // share of the traffic; 0 = 1
	MaxConns int    // connections held at once; 0 = no limit
	CAFile   string // PEM roots for https; empty = the system's
}

// Gateway is one parsed vendor gateway. It is immutable; copies share the roots.
type Gateway struct {
	Name     string
	Scheme   string
	Host     string // name or address literal, without brackets; empty for direct
	Port     string
	Weight   int // at least 1
	MaxConns int // 0 = no limit

	username string
	password string
	roots    *x509.CertPool
}

// ParseGateway validates c. In the URL's user information a percent sign followed
// by two hex digits is an escape if every percent sign is one; otherwise, and
// always in Username and Password, every byte stands for itself, so that passwords
// with ':', '@', '%' and spaces survive. Errors never show a credential.
func ParseGateway(c GatewayConfig) (Gateway, error) {
	g := Gateway{Name: c.Name, Weight: c.Weight, MaxConns: c.MaxConns}
	if g.Weight == 0 {
		g.Weight = 1
	}
	if g.Weight < 0 || g.Weight > 1000 {
		return Gateway{}, fmt.Errorf("weight %d is not between 1 and 1000", c.Weight)
	}
	if g.MaxConns < 0 {
		return Gateway{}, errors.New("the connection limit is negative")
	}
	if c.URL == Direct {
		return parseDirect(g, c)
	}
	if err := g.parseURL(c.URL); err != nil {
		return Gateway{}, err
	}
	g.username, g.password = cmp.Or(c.Username, g.username), cmp.Or(c.Password, g.password)
	if err := checkCredentials(g.username, g.password); err != nil {
		return Gateway{}, err
	}
	if g.Name == "" {
		g.Name = g.Host
	}
	if err := checkName(g.Name); err != nil {
		return Gateway{}, err
	}
	return g, g.loadRoots(c.CAFile)
}

func parseDirect(g Gateway, c GatewayConfig) (Gateway, error) {
	if c.Username != "" || c.Password != "" || c.CAFile != "" {
		return Gateway{}, errors.New("direct:// takes no credentials and no CA file")
	}
	g.Scheme = SchemeDirect
	if g.Name == "" {
		g.Name = SchemeDirect
	}
	return g, checkName(g.Name)
}

// parseURL splits by hand: net/url refuses the very passwords that vendors hand out.
func (g *Gateway) parseURL(raw string) error {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return errors.New("not a URL; write http://user:password@host:port")
	}
	switch scheme = strings.ToLower(scheme); scheme {
	case SchemeHTTP, SchemeHTTPS:
		g.Scheme = scheme
	case SchemeDirect:
		return errors.New("direct:// takes no host")
	case "socks5", "socks5h":
		return errors.New("socks5 gateways are not in this version")
	default:
		return errors.New("the scheme is not http, https or direct")
	}
	authority := rest
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		authority = rest[i+1:]
		g.username, g.password = splitUserinfo(rest[:i])
	}
	authority = strings.TrimSuffix(authority, "/")
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

func checkCredentials(username, password string) error {
	if strings.Contains(username, ":") {
		return errors.New("a username cannot contain a colon (RFC 7617 §2)")
	}
	if username == "" && password != "" {
		return errors.New("a password without a username")
	}
	if hasControl(username) || hasControl(password) {
		return errors.New("the credentials contain a control byte (RFC 7617 §2)")
	}
	return nil
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
		return errors.New("a CA file is for https:// gateways")
	}
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("CA file: %w", err)
	}
	if info.Size() > maxCAFile {
		return fmt.Errorf("CA file: larger than %d bytes", maxCAFile)
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("CA file: %w", err)
	}
	g.roots = x509.NewCertPool()
	if !g.roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("CA file: no certificate in %s", file)
	}
	return nil
}

// HasCredentials reports whether the gateway has a login of the operator's.
func (g Gateway) HasCredentials() bool { return g.username != "" }

// Secrets returns what must never be seen outside: the password and the
// Proxy-Authorization token. Empty without credentials.
func (g Gateway) Secrets() []string {
	if !g.HasCredentials() {
		return nil
	}
	token := strings.TrimPrefix(g.authorization(), "Basic ")
	if g.password == "" {
		return []string{token}
	}
	return []string{g.password, token}
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

// authorization is the Proxy-Authorization value, empty without credentials.
func (g Gateway) authorization() string {
	if !g.HasCredentials() {
		return ""
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(g.username+":"+g.password))
}
