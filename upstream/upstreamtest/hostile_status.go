package upstreamtest

import (
	"bytes"
	"fmt"
)

// statusHostilities are the families of the status codes.
func statusHostilities() []Hostility {
	var all []Hostility
	for code := 100; code <= 999; code++ {
		h := Hostility{Name: fmt.Sprintf("status-%d", code), Ways: everyWay}
		switch {
		case code == 101:
			h.HTTP = text("HTTP/1.1 101 {brand} switches\r\nUpgrade: {lower}/1\r\nConnection: Upgrade\r\nX-{brand}-Node: 1\r\n\r\n", KeepOpen)
		case code < 200:
			h.Serves = true
			h.HTTP = serves(meddling{before: fmt.Sprintf("HTTP/1.1 %d {brand} hints\r\nLink: <https://{host}/>; rel=preload\r\nX-{brand}-Hint: 1\r\n\r\n", code)})
		case code < 300:
			h.Serves, h.Ways = true, byTunnels
			h.HTTP = relayReply(fmt.Sprintf("HTTP/1.1 %d {brand} OK\r\nVia: 1.1 {host}\r\nX-{brand}-Session: 1\r\n\r\n", code))
			all = append(all, Hostility{Name: fmt.Sprintf("page-%d", code), Ways: ByPlain, HTTP: ownPage(code)})
		default:
			h.HTTP = ownPage(code)
		}
		all = append(all, h)
	}
	return all
}

// ownPage answers with the vendor's own page, which names him wherever a name can stand.
func ownPage(code int) Behaviour {
	if code == 204 || code == 304 {
		return once(func(v *Vendor) []byte { return located(v, code) }, HalfClose) // their bodies are none to a client
	}
	return eachRequest(func(v *Vendor) []byte { return located(v, code) })
}

// located is a loud reply that leads to the vendor.
func located(v *Vendor, code int) []byte {
	return bytes.Replace(v.loudReply(code, "NO_PEER"), []byte("\r\n\r\n"), []byte("\r\nLocation: https://"+v.host()+"/billing\r\n\r\n"), 1)
}
