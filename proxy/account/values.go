package account

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

const maxRate = 1e9

// parseNetwork reads a CIDR, whose host bits are dropped, or an address. IPv4 in
// IPv6 form becomes IPv4.
func parseNetwork(s string) (netip.Prefix, bool) {
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, false
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if prefix.Addr().Is4In6() {
		if prefix.Bits() < 96 {
			return netip.Prefix{}, false
		}
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), true
}

// typeProblem says why n is not what was wanted.
func typeProblem(n ast.Node, want string) string {
	switch n.(type) {
	case *ast.NullNode:
		return "has no value"
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		return "anchors, aliases and tags are not supported"
	}
	return want
}

func stringOf(n ast.Node) (value, problem string) {
	switch n := n.(type) {
	case *ast.StringNode:
		return strings.Clone(n.Value), "" // not a piece of the file's text
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return "", "must be a string: put it in quotes"
	}
	return "", typeProblem(n, "must be a string on one line")
}

func wholeOf(n ast.Node) (int, string) {
	if number, ok := n.(*ast.IntegerNode); ok {
		if value, ok := parseWhole(number.Token.Value); ok {
			return value, ""
		}
	}
	return 0, typeProblem(n, wantWhole)
}

func rateOf(n ast.Node) (float64, string) {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
		text := n.GetToken().Value
		value, err := strconv.ParseFloat(text, 64)
		if err == nil && !math.Signbit(value) && value <= maxRate && !strings.ContainsAny(text, "xXoO_") {
			return value, ""
		}
	}
	return 0, typeProblem(n, "must be a number from 0 to 1000000000")
}

func bandwidthOf(n ast.Node) (int64, string) {
	var s string
	switch n := n.(type) {
	case *ast.StringNode:
		s = n.Value
	case *ast.IntegerNode, *ast.FloatNode:
		s = n.GetToken().Value // as it stands in the file: 1e6 and 0x10 are no sizes
	default:
		return 0, typeProblem(n, "must be a size such as 10MB")
	}
	value, err := ParseBandwidth(s)
	if err != nil {
		return 0, err.Error()
	}
	return value, ""
}

func timeOf(n ast.Node) (time.Time, string) {
	if s, ok := n.(*ast.StringNode); ok {
		t, err := time.Parse(time.RFC3339, s.Value)
		if err == nil && !t.IsZero() {
			return t, ""
		}
	}
	return time.Time{}, typeProblem(n, "must be a time such as 2026-12-31T00:00:00Z")
}

func boolOf(n ast.Node) (value bool, problem string) {
	if b, ok := n.(*ast.BoolNode); ok {
		return b.Value, ""
	}
	return false, typeProblem(n, "must be true or false")
}
