package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
)

// door is where customers come in.
type door struct {
	host, port string // host without brackets; "" = all addresses of this machine
	pool       string // of gateways; "" = the default
	tls        bool
}

func (d door) address() string { return net.JoinHostPort(d.host, d.port) }

// scheme is that of the proxy's URL.
func (d door) scheme() string {
	if d.tls {
		return "https"
	}
	return "http"
}

// wildcard reports whether the door is on all addresses of this machine.
func (d door) wildcard() bool {
	if d.host == "" {
		return true
	}
	ip, err := netip.ParseAddr(d.host)
	return err == nil && ip.IsUnspecified()
}

// doorsOf are the listeners, plain ones first; at least one.
func doorsOf(cfg *Config) []door {
	var doors []door
	for _, a := range cfg.Listen {
		host, port := a.split()
		doors = append(doors, door{host: host, port: port, pool: a.Pool})
	}
	for _, a := range cfg.TLS.TLSListen {
		host, port := a.split()
		doors = append(doors, door{host: host, port: port, pool: a.Pool, tls: true})
	}
	return doors
}

// findHost finds the host and the port that customers use. The listener is the one of that port, or the first.
func (l *proxyList) findHost(cfg *Config) error {
	given, from := l.question.host, "--host"
	if given == "" {
		given, from = string(cfg.Public), envPrefix+"PUBLIC_ADDR"
	}
	doors := doorsOf(cfg)
	l.door = doors[0]
	if given != "" {
		host, port, err := splitPublic(given)
		if err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		if port != "" {
			l.door = doorOf(doors, port)
		}
		l.door.host = host
	}
	if l.door.port == "0" {
		return errors.New("--host: the port is missing, and the kernel chooses the listener's; write host:port")
	}
	if given == "" {
		return l.guessHost()
	}
	return nil
}

// doorOf is the listener of a port; behind a balancer whose port is another, it is the first one's, if there is none.
func doorOf(doors []door, port string) door {
	for _, d := range doors {
		if d.port == port {
			return d
		}
	}
	d := doors[0]
	d.port = port
	return d
}

// guessHost takes this machine's name for a listener on all addresses.
func (l *proxyList) guessHost() error {
	if ip, err := netip.ParseAddr(l.door.host); err == nil && ip.IsLoopback() || l.door.host == "localhost" {
		l.warn("the listener is on %s, which nobody but this machine reaches", l.door.host)
	}
	if !l.door.wildcard() {
		return nil
	}
	name, err := os.Hostname()
	if err != nil || !publicHost(name) {
		return fmt.Errorf("--host: missing; neither %sPUBLIC_ADDR nor the listener's address names a host", envPrefix)
	}
	l.door.host = name
	l.warn("the host is this machine's name, %s; give the one that customers know by --host or %sPUBLIC_ADDR", name, envPrefix)
	return nil
}
