package masking

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

func TestMarksFind(t *testing.T) {
	m := NewMarks("oxylabs", "", "superproxy.io", "brd.superproxy.io", "OXYLABS", "he", "she", "\xff\x00", "Pass:Word", "longest", "nge")
	for _, c := range []struct {
		name, in, mark string
		offset         int
	}{
		{"alone", "oxylabs", "oxylabs", 0},
		{"any case, first spelling wins", "x OxyLabs", "oxylabs", 2},
		{"as given", "pass:word", "Pass:Word", 0},
		{"longest of those that end together", "http://brd.superproxy.io/", "brd.superproxy.io", 7},
		{"the shorter one alone", "zproxy.superproxy.io", "superproxy.io", 7},
		{"restart within a false start", "brd.superbrd.superproxy.io", "brd.superproxy.io", 9},
		{"repeated beginning", "ooxyoxylabs", "oxylabs", 4},
		{"overlap", "ushers", "she", 1},
		{"end within a longer one", "a longer way", "nge", 4},
		{"any byte", "a\xff\x00b", "\xff\x00", 1},
		{"cut off", "oxylab s", "", 0},
		{"empty", "", "", 0},
		{"punctuation is no letter", "PASS\x1aWORD", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			mark, offset, found := m.Find([]byte(c.in))
			if mark != c.mark || offset != c.offset || found != (c.mark != "") {
				t.Fatalf("got %q at %d, %v", mark, offset, found)
			}
		})
	}
}

func TestMarksEmpty(t *testing.T) {
	if _, _, found := NewMarks("", "").Find([]byte("anything")); found {
		t.Fatal("found a mark in no set")
	}
}

func TestMarksWith(t *testing.T) {
	policy := mustPolicy(t, PolicyConfig{})
	m := policy.Marks().With("alice")
	for in, want := range map[string]bool{"Alice": true, "oxylabs": true, "illuminati": false, "luminati": true, "illuminati luminati": true} {
		if _, _, found := m.Find([]byte(in)); found != want {
			t.Errorf("%q: found %v", in, found)
		}
	}
	if _, _, found := policy.Marks().Find([]byte("alice")); found {
		t.Error("With changed its receiver")
	}
}

// TestMarksAllBytes fills every column of the table.
func TestMarksAllBytes(t *testing.T) {
	var words []string
	for i := range 256 {
		words = append(words, fmt.Sprintf("%c%c!", byte(i), byte(i)), string([]byte{byte(i), byte(i), '?'}))
	}
	m := NewMarks(words...)
	for i := range 256 {
		if _, offset, found := m.Find([]byte{'.', byte(i), byte(i), '?'}); !found || offset != 1 {
			t.Errorf("byte %#x: found %v at %d", i, found, offset)
		}
	}
}

// TestBuiltinMarks holds the built-in list against text that must and must not hit.
func TestBuiltinMarks(t *testing.T) {
	m := mustPolicy(t, PolicyConfig{}).Marks()
	for _, s := range strings.Fields(`brd.superproxy.io zproxy.lum-superproxy.io brightdata.com lumtest.com geo.brdtest.com luminati.io pr.oxylabs.io gate.decodo.com
		gate.smartproxy.com proxy.smartproxy.net geo.iproyal.com proxy.soax.com gw.netnut.net gw.ntnt.io p.webshare.io proxy.packetstream.io
		proxy.geonode.io gw.dataimpulse.com rp.evomi.com network.joinmassive.com ip.nimbleway.com pool.infatica.io
		rotating.proxyempire.io proxy.froxy.com res.proxy-seller.com la.residential.rayobyte.com gate.nodemaven.com t.pr.thordata.net pool.proxys.io`) {
		if _, _, found := m.Find([]byte(s)); !found {
			t.Errorf("%q is not found", s)
		}
	}
	for _, s := range []string{"a massive and nimble soak", "Illuminati", "bright data points", "webshare.cz", "node geo", "smart proxy", "default-src 'self' https://*.googleapis.com"} {
		if mark, _, found := m.Find([]byte(s)); found {
			t.Errorf("%q: found %q", s, mark)
		}
	}
}

func TestMarksShared(t *testing.T) {
	m := NewMarks("oxylabs", "Secret Word")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s := NewScanner("x", m, true)
			_, _ = s.Write([]byte("T3h5bGFicw== b3h5bGFicw== secret+word"))
			if got := len(s.Leaks()); got != 2 {
				t.Errorf("%d leaks: %v", got, s.Leaks())
			}
		})
	}
	wg.Wait()
}

func TestPending(t *testing.T) {
	m := NewMarks("oxylabs", "LabsCo")
	for in, want := range map[string]int{
		"": 0, "x": 0, "o": 1, "see OXY": 3, "oxylab": 6, "oxylabs": 4, "xoxyl": 4, "labsco": 1, "oxo": 1,
	} {
		if got := m.Pending([]byte(in)); got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
}
