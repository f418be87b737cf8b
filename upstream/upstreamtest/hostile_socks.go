package upstreamtest

import (
	"fmt"
	"maps"
	"strings"
	"time"
)

// socksBound is a reply to a CONNECT that came off, with a name for the exit's address.
func socksBound(name string) []byte {
	b := append([]byte{socksVersion, 0, 0, socksName, byte(len(name))}, name...)
	return append(b, 0x30, 0x39)
}

// socksServing are replies to CONNECT behind which the gateway serves.
var socksServing = map[string][]byte{
	"bound-name":       socksBound("exit-7.peers." + DefaultBrand + ".example"),
	"bound-name-255":   socksBound((DefaultBrand + strings.Repeat(".peer", 60))[:255]),
	"bound-name-1":     socksBound("x"),
	"bound-name-8bit":  socksBound("\xfc\x00\r\n\r\nHTTP/1.1 200 " + DefaultBrand),
	"bound-name-empty": socksBound(""),
	"bound-ipv6":       append(append([]byte{socksVersion, 0, 0, socksIPv6}, "\x20\x01\x0d\xb8"+DefaultBrand+"0"...), 0x30, 0x39),
	"bound-zero":       {socksVersion, 0, 0, socksIPv4, 0, 0, 0, 0, 0, 0},
}

// socksWords are wrong messages: by step, by name.
var socksWords = map[SOCKSStep]map[string]string{
	SOCKSMethod: {"version-0": "\x00\x02", "version-1": "\x01\x02", "version-4": "\x04\x02", "version-6": "\x06\x02", "version-255": "\xff\x02",
		"none": "\x05\xff", "gssapi": "\x05\x01", "private": "\x05\x80", "not-offered": "\x05\x03", "and-more": "\x05\x02\x01\x00"},
	SOCKSLogin: {"version-0": "\x00\x00", "version-5": "\x05\x00", "refused-1": "\x01\x01", "refused-2": "\x01\x02", "refused-255": "\x01\xff",
		"and-more": "\x01\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"},
	SOCKSReply: {"version-0": "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00", "version-4": "\x04\x5a\x00\x01\x00\x00\x00\x00\x00\x00",
		"reserved": "\x05\x00\x01\x01\x00\x00\x00\x00\x00\x00", "type-0": "\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"type-2": "\x05\x00\x00\x02\x00\x00\x00\x00\x00\x00", "type-5": "\x05\x00\x00\x05\x00\x00\x00\x00\x00\x00",
		"type-255": "\x05\x00\x00\xff\x00\x00\x00\x00\x00\x00", "refused-by-name": "\x05\x02\x00\x03\x0b" + DefaultBrand + "\x00\x00",
		"refused-short": "\x05\x01", "refused-and-more": "\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00" + DefaultBrand + " says no"},
}

// socksGarbage is said in the place of every message.
var socksGarbage = map[string]string{
	"brand":   DefaultBrand + " says no\r\n",
	"http":    "HTTP/1.1 407 " + DefaultBrand + "\r\nProxy-Authenticate: Basic realm=\"" + DefaultBrand + "\"\r\n\r\n",
	"html":    "<html>" + DefaultBrand + "</html>",
	"tls":     "\x15\x03\x01\x00\x02\x02\x28",
	"nuls":    strings.Repeat("\x00", 300),
	"flood":   strings.Repeat(DefaultBrand+" ", 1<<15),
	"ssh":     "SSH-2.0-" + DefaultBrand + "\r\n",
	"newline": "\r\n",
}

// socksSteps are the messages in the words of names, with a good one of each.
var socksSteps = map[SOCKSStep]struct{ name, good string }{
	SOCKSMethod: {"method", "\x05\x02"},
	SOCKSLogin:  {"login", "\x01\x00"},
	SOCKSReply:  {"reply", string(socksEstablished)},
}

// socksHostilities are what a gateway can do that speaks SOCKS5.
func socksHostilities() []Hostility {
	all := []Hostility{
		{Name: "socks-relay", Serves: true, SOCKS: &SOCKSBehaviour{}},
		{Name: "socks-split", Serves: true, SOCKS: &SOCKSBehaviour{Chunk: 1, Delay: 100 * time.Microsecond}},
		{Name: "socks-slowly", Serves: true, SOCKS: &SOCKSBehaviour{Chunk: 1, Delay: 2 * time.Millisecond}},
		{Name: "socks-first-brand", SOCKS: &SOCKSBehaviour{First: []byte(DefaultBrand + " ready\r\n")}},
		{Name: "socks-first-method", SOCKS: &SOCKSBehaviour{First: []byte{socksVersion, socksUserPass}}},
		{Name: "socks-first-http", SOCKS: &SOCKSBehaviour{First: []byte("HTTP/1.1 400 " + DefaultBrand + "\r\n\r\n")}},
		{Name: "tunnel-socks-early", Serves: true, Breaks: true, Ways: ByConnect, SOCKS: &SOCKSBehaviour{Early: []byte(gluedBytes)}},
	}
	for rep := 1; rep <= 255; rep++ {
		all = append(all, Hostility{Name: fmt.Sprintf("socks-rep-%03d", rep), SOCKS: &SOCKSBehaviour{Rep: byte(rep)}})
	}
	for name, reply := range socksServing {
		all = append(all, Hostility{Name: "socks-" + name, Serves: true, SOCKS: saying(SOCKSReply, string(reply))},
			Hostility{Name: "socks-" + name + "-split", Serves: true, SOCKS: &SOCKSBehaviour{
				Say: map[SOCKSStep][]byte{SOCKSReply: reply}, Chunk: 1, Delay: 50 * time.Microsecond}})
	}
	for step, of := range socksSteps {
		first := len(all)
		words := maps.Clone(socksWords[step])
		for name, s := range socksGarbage {
			words["garbage-"+name] = s
		}
		for name, s := range words {
			b := saying(step, s)
			b.After, b.Then = step, HalfClose
			all = append(all, Hostility{Name: "socks-" + of.name + "-" + name, SOCKS: b})
		}
		all = append(all, socksEndings(step, of.name, of.good)...)
		for i := range all[first:] {
			all[first+i].Login = step == SOCKSLogin
		}
	}
	for i := range all {
		if all[i].Ways == 0 {
			all[i].Ways = everyWay
		}
	}
	return all
}

// saying is a gateway with words of its own in the place of one message.
func saying(step SOCKSStep, s string) *SOCKSBehaviour {
	return &SOCKSBehaviour{Say: map[SOCKSStep][]byte{step: []byte(s)}}
}

// socksEndings end in the place of a message, and in the middle of it.
func socksEndings(step SOCKSStep, name, good string) []Hostility {
	var all []Hostility
	for word, then := range map[string]Ending{"closes": Close, "resets": RST, "fin": HalfClose, "silent": KeepOpen, "stalls": Stall} {
		waits := then == KeepOpen || then == Stall
		half := saying(step, good[:len(good)/2])
		half.After, half.Then = step, then
		all = append(all,
			Hostility{Name: "socks-" + name + "-" + word, Waits: waits, SOCKS: &SOCKSBehaviour{Until: step, Then: then}},
			Hostility{Name: "socks-half-" + name + "-" + word, Waits: waits, SOCKS: half})
	}
	return all
}
