package upstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// resolve looks the gateway's name up; nil = in vain.
func (x *examination) resolve(ctx context.Context) []netip.Addr {
	began := time.Now()
	if addr, err := netip.ParseAddr(x.g.Host); err == nil {
		x.hops = append(x.hops, Hop{Name: HopResolve, Result: HopOK, Detail: "the gateway is given by its address"})
		return []netip.Addr{addr}
	}
	limited, cancel := context.WithTimeout(ctx, x.g.timeout)
	defer cancel()
	lookup, err := x.c.Options.lookup()
	var found answer
	if err == nil {
		found, err = lookup(limited, x.g.Host, false)
	}
	addrs := found.addrs
	if err == nil && len(addrs) == 0 {
		err = errors.New("the name has no address")
	}
	if err != nil {
		failure := &ConnectError{Phase: PhaseResolve, Cause: netCause(ctx, err, CauseResolve), Err: err}
		x.fail(HopResolve, failure, nil, began)
		return nil
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() }) // IPv4 first
	addrs = slices.Compact(addrs)
	x.ok(HopResolve, listed(addrs), began)
	return addrs
}

// dialAll makes a TCP connection to each address, to one after the other. One that this
// host has no way to, as IPv6 addresses often are, is no failure while another is reached.
func (x *examination) dialAll(ctx context.Context, addrs []netip.Addr) {
	first := len(x.hops)
	for i, addr := range addrs {
		if i == diagnoseAddrs {
			x.skip(HopTCP, "not tried: "+listed(addrs[i:]))
			break
		}
		x.dialAddr(ctx, netip.AddrPortFrom(addr, gatewayPort(x.g.Port)))
	}
	if !x.reached.IsValid() {
		return
	}
	for i := first; i < len(x.hops); i++ {
		if h := &x.hops[i]; h.Result == HopFailed && h.Advice == adviceNoRoute {
			h.Result, h.Detail, h.Cause, h.Advice = HopSkipped, h.Detail+": this host has no way to it", "", ""
		}
	}
}

func (x *examination) dialAddr(ctx context.Context, to netip.AddrPort) {
	began := time.Now()
	conn, failure := x.dial(ctx, to)
	if failure != nil {
		x.fail(HopTCP, failure, nil, began)
		last := &x.hops[len(x.hops)-1]
		last.Detail = to.String() + ": " + last.Detail
		return
	}
	from := conn.LocalAddr()
	_ = conn.Close()
	x.ok(HopTCP, to.String()+" from "+hostOf(from), began)
	if !x.reached.IsValid() {
		x.reached = to
	}
}

// dial makes a TCP connection to one address of the gateway.
func (x *examination) dial(ctx context.Context, to netip.AddrPort) (net.Conn, *ConnectError) {
	d := Dial{Addr: to, Timeout: x.g.timeout}
	if sources := x.c.Options.Sources; len(sources) > 0 {
		i := slices.IndexFunc(sources, func(a netip.Addr) bool { return a.Unmap().Is4() == to.Addr().Is4() })
		if i < 0 {
			return nil, &ConnectError{Phase: PhaseDial, Cause: CauseRefused, Err: errNoSource}
		}
		d.Source = sources[i].Unmap()
	}
	conn, err := x.g.dialOne(ctx, d)
	if err != nil {
		return nil, &ConnectError{Phase: PhaseDial, Cause: netCause(ctx, err, CauseRefused), Err: err}
	}
	return conn, nil
}

// listed is the addresses as a text, the first few of them.
func listed(addrs []netip.Addr) string {
	s := ""
	for i, a := range addrs {
		switch {
		case i == diagnoseAddrs:
			return s + ", …"
		case i > 0:
			s += ", "
		}
		s += a.String()
	}
	return s
}

func hostOf(a net.Addr) string {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().String()
	}
	return a.String()
}

func gatewayPort(s string) uint16 {
	n, _ := strconv.ParseUint(s, 10, 16) // ParseGateway checked it
	return uint16(n)
}
