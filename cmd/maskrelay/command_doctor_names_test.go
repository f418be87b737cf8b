package main

import (
	"strings"
	"testing"
)

// TestDoctorNameServer: the gateway's name is looked up where the relay does it.
func TestDoctorNameServer(t *testing.T) {
	w := startWard(t)
	got, r := w.doctor(t, map[string]string{"UPSTREAM": "http://u:secretsecret@gw.vendor.invalid:80", "DNS_SERVER": "127.0.0.1:1"})
	if h := r.hop("gateway", "dns"); got.code != exitFailed || !strings.Contains(h.Remedy, "MASKRELAY_DNS_SERVER (127.0.0.1:1)") {
		t.Errorf("%+v", h)
	}
}
