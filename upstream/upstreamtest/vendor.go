package upstreamtest

import (
	"bufio"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// DefaultBrand is the name of a vendor that was given none.
	DefaultBrand = "SuperVendor"
	// exitIP is the address that the vendor claims requests leave from (TEST-NET-3, RFC 5737).
	exitIP = "203.0.113.77"
	// vendorTrace stands in fields that tell a vendor by their names alone, so that one that passes is seen.
	vendorTrace = "vt-8f14e45fceea167a"

	defaultHeadTimeout = 2 * time.Minute
	defaultDialTimeout = 10 * time.Second
)

// VendorConfig describes a vendor gateway. The zero value is an open relay on a free loopback port.
type VendorConfig struct {
	// Addr is where to listen; default 127.0.0.1:0.
	Addr string
	// Username and Password are required by Basic from every request when Username is not empty;
	// others get a 407 that names the vendor.
	Username, Password string
	// TLS makes it an https:// gateway. It needs a certificate; only HTTP/1.1 is spoken.
	TLS *tls.Config
	// CA signs the certificates that behaviours present in the place of TLS's, when they are to be
	// trusted by whoever trusts TLS's. Without it those behaviours present TLS's own.
	CA *CA
	// Brand is in every header, reason phrase, realm and body that the vendor makes.
	// Letters, digits and hyphens; default [DefaultBrand].
	Brand string
	// Behaviour serves connections; default [Relay].
	Behaviour Behaviour
	// Dial connects to targets; default a net.Dialer. Tests map names to loopback with it.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// DialTimeout bounds Dial; default 10 s.
	DialTimeout time.Duration
	// HeadTimeout bounds the wait for a request head, also between two requests; default 2 min.
	HeadTimeout time.Duration
	// RecordLimit is how many received bytes are kept over all connections: 0 means
	// [DefaultRecordLimit], below 0 none. The oldest are kept.
	RecordLimit int64
}

// Behaviour is what a vendor does to one connection.
type Behaviour interface {
	// Serve serves a connection whose first request head was read. It owns c
	// until it returns; then the vendor closes c. It must return soon after c is
	// closed or ctx ends, and must be safe for use on many connections at once.
	Serve(ctx context.Context, c *Conn, req *RecordedRequest)
}

// Vendor is a running gateway. All methods are safe for concurrent use.
type Vendor struct {
	config VendorConfig
	st     *station

	mu        sync.Mutex // guards behaviour
	behaviour Behaviour
}

// StartVendor starts a gateway. The caller must Close it.
func StartVendor(config VendorConfig) (*Vendor, error) {
	if config.Brand == "" {
		config.Brand = DefaultBrand
	}
	if strings.Trim(config.Brand, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
		return nil, errors.New("upstreamtest: brand: only letters, digits and hyphens can stand in a header name")
	}
	if config.Behaviour == nil {
		config.Behaviour = Relay{}
	}
	if config.Dial == nil {
		config.Dial = (&net.Dialer{}).DialContext
	}
	if config.DialTimeout <= 0 {
		config.DialTimeout = defaultDialTimeout
	}
	if config.HeadTimeout <= 0 {
		config.HeadTimeout = defaultHeadTimeout
	}
	v := &Vendor{behaviour: config.Behaviour}
	if config.TLS != nil {
		config.TLS = config.TLS.Clone()
		config.TLS.NextProtos = []string{"http/1.1"}
		if config.TLS.GetConfigForClient == nil {
			config.TLS.GetConfigForClient = v.shake
		}
	}
	st, err := newStation(config.Addr, config.TLS, config.RecordLimit)
	if err != nil {
		return nil, err
	}
	v.config, v.st = config, st
	st.serve(v.serve)
	return v, nil
}

// serve reads the first head and hands the connection to the behaviour that is set now.
func (v *Vendor) serve(ctx context.Context, rc *recorded) {
	behaviour := v.current()
	c := &Conn{recorded: rc, br: bufio.NewReader(rc), vendor: v}
	if o, ok := behaviour.(opener); ok && !o.open(ctx, c) {
		return
	}
	req, err := c.ReadRequest()
	if errors.Is(err, errMalformedHead) || errors.Is(err, errHeadTooLarge) {
		_ = c.write(v.loudReply(400, "BAD_REQUEST")) // the connection ends here either way
		return
	}
	if err == nil {
		behaviour.Serve(ctx, c, req)
	}
}

// opener is a Behaviour that has a say before the first request is read. open reports
// whether the connection goes on.
type opener interface {
	open(ctx context.Context, c *Conn) bool
}

// current is the behaviour that is set now.
func (v *Vendor) current() Behaviour {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.behaviour
}

// SetBehaviour changes what happens to connections accepted from now on. Nil means [Relay].
func (v *Vendor) SetBehaviour(b Behaviour) {
	if b == nil {
		b = Relay{}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.behaviour = b
}

// Addr returns the listener's host:port.
func (v *Vendor) Addr() string { return v.st.Addr().String() }

// URL returns the gateway's URL with its credentials, percent-encoded.
func (v *Vendor) URL() string {
	u := url.URL{Scheme: "http", Host: v.Addr()}
	if v.config.TLS != nil {
		u.Scheme = "https"
	}
	if v.config.Username != "" {
		u.User = url.UserPassword(v.config.Username, v.config.Password)
	}
	return u.String()
}

// Brand returns the name that the vendor puts everywhere.
func (v *Vendor) Brand() string { return v.config.Brand }

// Close stops the vendor: connections are cut, and when it returns all of its goroutines have ended.
func (v *Vendor) Close() error { return v.st.close() }

// Conns returns a record of every connection in order of accept, open or not, [MaxRecords] at most.
func (v *Vendor) Conns() []*ConnRecord { return v.st.led.list() }

// Open returns how many connections are open now.
func (v *Vendor) Open() int {
	_, open := v.st.led.counts()
	return open
}

// Accepted returns how many connections were ever accepted.
func (v *Vendor) Accepted() int {
	accepted, _ := v.st.led.counts()
	return accepted
}

// Received returns all bytes from all connections, in order of accept.
func (v *Vendor) Received() []byte { return v.st.led.received() }

// Dropped returns how many received bytes the record limit left out of Received.
func (v *Vendor) Dropped() int64 { return v.st.led.dropped() }

// Marks returns what must never reach a customer: the brand in its spellings,
// host names, realm, address, exit address, trace and credentials. Scanning for them
// wants credentials long enough not to occur by chance.
func (v *Vendor) Marks() []string {
	brand := v.config.Brand
	marks := []string{brand, strings.ToLower(brand), strings.ToUpper(brand), v.realm(), v.host(), exitIP, vendorTrace, v.Addr()}
	if v.config.Username != "" {
		marks = append(marks, v.config.Username, v.basic())
	}
	if v.config.Password != "" {
		marks = append(marks, v.config.Password)
	}
	return marks
}

// host is the vendor's own name, as it stands in Via and X-Cache.
func (v *Vendor) host() string { return "gw-3." + strings.ToLower(v.config.Brand) + ".example" }

// realm is the realm of its challenges.
func (v *Vendor) realm() string { return v.config.Brand + " residential gateway" }

// basic is the credential part of the Proxy-Authorization that it takes.
func (v *Vendor) basic() string {
	return base64.StdEncoding.EncodeToString([]byte(v.config.Username + ":" + v.config.Password))
}

// authorized reports whether req carries the vendor's credentials, or none are needed.
func (v *Vendor) authorized(req *RecordedRequest) bool {
	if v.config.Username == "" {
		return true
	}
	scheme, given, _ := strings.Cut(req.Header.Get("Proxy-Authorization"), " ")
	return strings.EqualFold(scheme, "Basic") &&
		subtle.ConstantTimeCompare([]byte(strings.TrimSpace(given)), []byte(v.basic())) == 1
}

// loudLines are the header lines of answers that the vendor makes itself.
func (v *Vendor) loudLines() []string {
	return append(v.forwardLines(), "Proxy-Agent: "+v.config.Brand+"/4.2")
}

// forwardLines are the header lines that the vendor puts on whatever passes it.
func (v *Vendor) forwardLines() []string {
	brand := v.config.Brand
	return []string{
		"Via: 1.1 " + v.host() + " (" + brand + "/4.2)",
		"X-Cache: MISS from " + v.host(),
		"X-Cache-Lookup: MISS from " + v.host() + ":3128",
		"X-" + brand + "-Session: " + strings.ToLower(brand) + "-8f14e45f",
		"X-" + brand + "-Exit-IP: " + exitIP,
		"Proxy-Status: " + v.host() + "; details=\"" + brand + " peer\"",
	}
}

// loudReply is a complete response of the vendor's own. The reason phrase and
// the body carry text, a 407 its challenge.
func (v *Vendor) loudReply(code int, text string) []byte {
	body := fmt.Sprintf("<html><body>%s: %s (account page: https://%s/)</body></html>\n", v.config.Brand, text, v.host())
	m := message{first: fmt.Sprintf("HTTP/1.1 %d %s %s", code, v.config.Brand, text), lines: v.loudLines()}
	m.lines = append(m.lines, "Server: "+v.config.Brand, "X-"+v.config.Brand+"-Error: "+text)
	if code == 407 {
		m.lines = append(m.lines, "Proxy-Authenticate: Basic realm=\""+v.realm()+"\"")
	}
	m.lines = append(m.lines, "Content-Type: text/html", fmt.Sprintf("Content-Length: %d", len(body)))
	return append(m.bytes(), body...)
}

// established is the vendor's 200 to a CONNECT.
func (v *Vendor) established() []byte {
	m := message{first: "HTTP/1.1 200 " + v.config.Brand + " Tunnel Established", lines: v.loudLines()}
	m.lines = append(m.lines, "Server: "+v.config.Brand, "Set-Cookie: "+strings.ToLower(v.config.Brand)+"_sid=1")
	return m.bytes()
}

// write writes all of b.
func (c *Conn) write(b []byte) error {
	_, err := c.Write(b)
	return err
}
