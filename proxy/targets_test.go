package proxy

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
)

// localSpellings are hosts that mean this machine, its network or its cloud.
func localSpellings() []string {
	return []string{
		"127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "2130706433", "0x7f000001", "0X7F000001", "017700000001", "0x7f.1", "0177.0.0.1",
		"0x7f.0x0.0x0.0x1", "127.0.0.0x1", "0", "0.0.0.0", "00", "0x0", "0x", "127.255.255.254", "10.0.0.1", "10.1", "012.0.0.1", "172.16.0.1",
		"172.31.255.255", "192.168.0.1", "3232235521", "169.254.169.254", "2852039166", "0xa9fea9fe", "0xA9.0xFE.0xA9.0xFE", "100.64.0.1",
		"100.100.100.200", "198.18.0.1", "198.19.255.255", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.0.0.1",
		"168.63.129.16",
		"::", "::1", "0:0:0:0:0:0:0:1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "100::1",
		"::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:a9fe:a9fe", "::127.0.0.1", "::7f00:1", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1",
		"64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::", "2001:0:4136:e378:8000:63bf:80ff:fffe",
		"2001:db8::5efe:127.0.0.1", "2001:db8::200:5efe:10.0.0.1", "2001:4860::5efe:c0a8:1",
		"localhost", "LOCALHOST", "localhost.", "a.localhost", "a.b.LocalHost.", "localhost.localdomain", "ip6-localhost", "ip6-loopback",
		"metadata", "metadata.google.internal", "Metadata.Google.Internal.", "metadata.goog", "instance-data",
	}
}

func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

func TestLocalTargets(t *testing.T) {
	closed, err := NewTargets(TargetsConfig{})
	must(t, err)
	open, err := NewTargets(TargetsConfig{AllowPrivate: true})
	must(t, err)
	for _, host := range localSpellings() {
		target, err := ParseTarget(bracketed(host) + ":443")
		if err != nil {
			t.Errorf("%s: not parsed", host)
			continue
		}
		if closed.Allow(target) {
			t.Errorf("%s is allowed", host)
		}
		if !open.Allow(target) {
			t.Errorf("%s is refused though private targets are allowed", host)
		}
	}
}

func TestPublicTargets(t *testing.T) {
	targets, err := NewTargets(TargetsConfig{})
	must(t, err)
	for _, host := range []string{
		"example.com", "example.com.", "EXAMPLE.com", "xn--bcher-kva.example", "a_b.example", "1.1.1.1", "8.8.8.8", "134744072", "0x08080808",
		"172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "198.17.0.1", "198.20.0.1", "192.169.0.1", "169.253.0.1", "11.0.0.1",
		"2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "2001:4860:4860::8888",
		"localhost.example", "notlocalhost", "metadata.example", "0x7f.example", "127.0.0.1.example", "10.example", "cafe", "0xg",
	} {
		target, err := ParseTarget(bracketed(host) + ":443")
		if err != nil {
			t.Errorf("%s: not parsed", host)
		} else if !targets.Allow(target) {
			t.Errorf("%s is refused", host)
		}
	}
}

func TestDeniedHostsAndPorts(t *testing.T) {
	targets, err := NewTargets(TargetsConfig{
		Ports: []uint16{443, 80}, DenyHosts: []string{"Bad.example", "*.worse.example", "8.8.8.8", "[2606:4700::1111]", "dotted.example."},
	})
	must(t, err)
	for authority, want := range map[string]bool{
		"good.example:443": true, "good.example:80": true, "good.example:8080": false, "good.example:1": false,
		"bad.example:443": false, "BAD.EXAMPLE.:443": false, "sub.bad.example:443": true, "worse.example:443": true,
		"a.worse.example:443": false, "a.b.Worse.example.:443": false, "notworse.example:443": true, "dotted.example:443": false,
		"8.8.8.8:443": false, "134744072:443": false, "0x8.8.8.8:443": false, "[::ffff:8.8.8.8]:443": false,
		"[2606:4700::1111]:443": false, "[2606:4700:0::1111]:443": false, "[2606:4700::1112]:443": true,
	} {
		target, err := ParseTarget(authority)
		must(t, err)
		if got := targets.Allow(target); got != want {
			t.Errorf("%s: allowed %v, want %v", authority, got, want)
		}
	}
	if _, err := NewTargets(TargetsConfig{DenyHosts: []string{"good.example", "a b", "*.", "http://x"}}); err == nil {
		t.Error("bad hosts are taken")
	} else if s := err.Error(); !strings.Contains(s, `"a b"`) || !strings.Contains(s, `"*."`) || !strings.Contains(s, `"http://x"`) {
		t.Errorf("not all are named: %s", s)
	}
}

func TestParseTarget(t *testing.T) {
	long := strings.Repeat("a", 63)
	for authority, want := range map[string]Target{
		"example.com:443": {"example.com", 443}, "Example.COM.:1": {"Example.COM.", 1}, "[::1]:65535": {"::1", 65535},
		"1.2.3.4:80": {"1.2.3.4", 80}, "0x7f.1:80": {"0x7f.1", 80}, long + ".example:443": {long + ".example", 443},
		"": {}, ":": {}, "a:": {}, "a": {}, "a:0": {}, "a:00443": {}, "a:65536": {}, "a:-1": {}, "a: 443": {}, "a:443 ": {}, "[]:443": {},
		"[::1%eth0]:443": {}, "::1:443": {}, long + "a.example:443": {}, strings.Repeat("a.", 127) + "a:443": {}, ".:443": {}, ".a:443": {},
		"1.2.3.4.5:443": {}, "1.2.3.256:443": {}, "0xffffffffff:443": {}, "08:443": {}, "a.1:443": {}, "a.0x1f:443": {}, "99999999999:443": {},
		"a%41:443": {}, "a/b:443": {}, "a?:443": {}, "a@b:443": {}, "a\r\n:443": {}, "ä:443": {}, "*.a:443": {}, "[1.2.3.4]:443": {}, "[a]:443": {},
	} {
		got, err := ParseTarget(authority)
		if got != want || (err == nil) != (want != Target{}) {
			t.Errorf("%q: got %v, %v; want %v", authority, got, err, want)
		}
	}
}

// looseIPv4 reads what the most lenient inet_aton would: numbers of any length that
// wrap at 32 bits.
func looseIPv4(host string) (netip.Addr, bool) {
	parts := strings.Split(strings.TrimSuffix(host, "."), ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var value uint64
	for i, part := range parts {
		n, ok := looseNumber(part)
		if !ok {
			return netip.Addr{}, false
		}
		if i < len(parts)-1 {
			value |= n & 0xff << (8 * (3 - i))
		} else {
			value |= n & (1<<(8*(5-len(parts))) - 1)
		}
	}
	v := uint32(value)
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), true
}

func looseNumber(s string) (uint64, bool) {
	base, digits := uint64(10), strings.ToLower(s)
	switch {
	case strings.HasPrefix(digits, "0x"):
		base, digits = 16, digits[2:]
	case len(digits) > 1 && digits[0] == '0':
		base = 8
	case digits == "":
		return 0, false
	}
	var n uint64
	for _, c := range digits {
		d, err := strconv.ParseUint(string(c), 16, 8)
		if err != nil || d >= base {
			return 0, false
		}
		n = n*base + d // wraps, as such readers do
	}
	return n, true
}

// Whatever passes reads the same again, and no reading of it as an IPv4 address is private.
func FuzzParseTarget(f *testing.F) {
	for _, host := range localSpellings() {
		f.Add(bracketed(host) + ":443")
	}
	for _, s := range []string{"example.com:443", "0x17f000001:443", "0x10000007f000001:80", "037777777777:80", "[::1%25a]:1", "a:1:2", "1e3:80"} {
		f.Add(s)
	}
	targets, err := NewTargets(TargetsConfig{})
	must(f, err)
	f.Fuzz(func(t *testing.T, authority string) {
		target, err := ParseTarget(authority)
		if err != nil {
			if target != (Target{}) {
				t.Errorf("%q: an error and %v", authority, target)
			}
			return
		}
		again, err := ParseTarget(target.String())
		if err != nil || again != target {
			t.Errorf("%q: %v reads as %v, %v", authority, target, again, err)
		}
		if strings.ContainsFunc(target.Host, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("@/?#%[]\\", r) }) {
			t.Errorf("%q: host %q", authority, target.Host)
		}
		if addr, ok := looseIPv4(target.Host); ok && !public(addr) && targets.Allow(target) {
			t.Errorf("%q is allowed and may be read as %s", authority, addr)
		}
	})
}
