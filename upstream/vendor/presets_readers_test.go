package vendor_test

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"maskrelay/upstream/vendor"
)

// The operator's own in these tests. They hold no separator of any vendor.
const ownLogin, ownPassword = "Operator1", "Secret1"

// reader reads a login back as one vendor does, and knows how he spells. It is written
// from the vendors' documents and shares nothing with the presets.
type reader struct {
	// read returns the vendor's keys and values, an error if he would not understand the login.
	read func(username, password string) (map[string]string, error)
	// spell is what the vendor must read for params; the session's value is not in it.
	spell func(p vendor.Params) map[string]string
	// session is the vendor's key of the session, "" if it is a port.
	session string
}

// keyed reads HEAD, first, then pairs.
func keyed(head, first, between, assign string) func(string) (map[string]string, error) {
	return func(s string) (map[string]string, error) {
		rest, found := strings.CutPrefix(s, head)
		if !found {
			return nil, fmt.Errorf("%q does not begin with %q", s, head)
		}
		got := map[string]string{}
		if rest == "" {
			return got, nil
		}
		if rest, found = strings.CutPrefix(rest, first); !found {
			return nil, fmt.Errorf("no %q in %q", first, s)
		}
		if between == assign { // keys and values take turns
			words := strings.Split(rest, between)
			if len(words)%2 != 0 {
				return nil, fmt.Errorf("%q has a key without a value", s)
			}
			for pair := range slices.Chunk(words, 2) {
				if err := put(got, pair[0], pair[1]); err != nil {
					return nil, err
				}
			}
			return got, nil
		}
		for pair := range strings.SplitSeq(rest, between) {
			key, value, found := strings.Cut(pair, assign)
			if !found {
				return nil, fmt.Errorf("%q has no %q", pair, assign)
			}
			if err := put(got, key, value); err != nil {
				return nil, err
			}
		}
		return got, nil
	}
}

func put(m map[string]string, key, value string) error {
	if _, twice := m[key]; twice || value == "" {
		return fmt.Errorf("%s=%q, after %q", key, value, m[key])
	}
	m[key] = value
	return nil
}

// inUsername is for vendors with the parameters in the username.
func inUsername(read func(string) (map[string]string, error)) func(username, password string) (map[string]string, error) {
	return func(username, password string) (map[string]string, error) {
		if password != ownPassword {
			return nil, fmt.Errorf("password %q", password)
		}
		return read(username)
	}
}

// inPassword is for those with the parameters in the password.
func inPassword(read func(string) (map[string]string, error)) func(username, password string) (map[string]string, error) {
	return func(username, password string) (map[string]string, error) {
		if username != ownLogin {
			return nil, fmt.Errorf("username %q", username)
		}
		return read(password)
	}
}

// spelled collects what is given, by the vendor's keys.
type spelled map[string]string

func (s spelled) add(key, value string) spelled {
	if value != "" {
		s[key] = value
	}
	return s
}

// ttl adds a lifetime in a unit.
func (s spelled) ttl(key string, d, unit time.Duration) spelled {
	if d > 0 {
		s[key] = strconv.Itoa(int(d / unit))
	}
	return s
}

func words(v, join string) string { return strings.ReplaceAll(v, "_", join) }

// stateNames are the states of the tests' random places, and their codes.
var stateNames = map[string]string{"ca": "california", "ny": "new_york", "nj": "new_jersey", "tx": "texas", "dc": "district_of_columbia"}

// stateName is a state of the US in full, whichever way it was written.
func stateName(v string) string {
	for code, name := range stateNames {
		if v == code || v == name || v == words(name, "") {
			return name
		}
	}
	return v
}

func stateCode(v string) string {
	for code, name := range stateNames {
		if name == stateName(v) {
			return code
		}
	}
	return ""
}

func inUS(p vendor.Params) string {
	if p.Country == "us" {
		return stateName(p.State)
	}
	return p.State
}

func withCountry(p vendor.Params, v string) string {
	if v == "" {
		return ""
	}
	return p.Country + "_" + v
}

// iproyalTTL is the first unit that is whole and within 59 seconds, 59 minutes, 168 hours.
func iproyalTTL(d time.Duration) string {
	switch {
	case d == 0:
		return ""
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + "s"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	default:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	}
}

// title is San Francisco for san_francisco.
func title(v string) string {
	parts := strings.Split(v, "_")
	for i, w := range parts {
		if w != "" {
			parts[i] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return strings.Join(parts, " ")
}

var upper = strings.ToUpper

var countryNames = map[string]string{"us": "UnitedStates", "gb": "UnitedKingdom", "de": "Germany", "fr": "France", "nl": "Netherlands", "nz": "NewZealand"}

var readers = map[string]reader{
	"brightdata": {inUsername(keyed(ownLogin, "-", "-", "-")), func(p vendor.Params) map[string]string {
		return spelled{}.add("country", p.Country).add("state", stateCode(p.State)).add("city", words(p.City, "")).add("zip", p.Zip).add("asn", p.ASN)
	}, "session"},
	"oxylabs": {inUsername(keyed("customer-"+ownLogin, "-", "-", "-")), func(p vendor.Params) map[string]string {
		return spelled{}.add("cc", upper(p.Country)).add("st", withCountry(p, stateName(p.State))).add("city", p.City).
			add("postalcode", p.Zip).ttl("sesstime", p.TTL, time.Minute)
	}, "sessid"},
	"decodo": {inUsername(keyed("user-"+ownLogin, "-", "-", "-")), func(p vendor.Params) map[string]string {
		return spelled{}.add("country", p.Country).add("state", withCountry(p, stateName(p.State))).add("city", p.City).
			add("zip", p.Zip).add("asn", p.ASN).ttl("sessionduration", p.TTL, time.Minute)
	}, "session"},
	"iproyal": {inPassword(keyed(ownPassword, "_", "_", "-")), func(p vendor.Params) map[string]string {
		return spelled{}.add("country", p.Country).add("state", words(p.State, "")).add("city", words(p.City, "")).add("lifetime", iproyalTTL(p.TTL))
	}, "session"},
	"soax": {inUsername(keyed("package-"+ownLogin, "-", "-", "-")), func(p vendor.Params) map[string]string {
		return spelled{}.add("country", p.Country).add("region", words(inUS(p), "+")).add("city", words(p.City, "+")).
			ttl("sessionlength", p.TTL, time.Second)
	}, "sessionid"},
	"netnut":   {inUsername(readNetNut), spellNetNut, "sid"},
	"webshare": {inUsername(readWebshare), spellWebshare, "session"},
	"packetstream": {inPassword(keyed(ownPassword, "_", "_", "-")), func(p vendor.Params) map[string]string {
		return spelled{}.add("country", countryNames[p.Country])
	}, "session"},
	"geonode": {inUsername(keyed(ownLogin+"-type-residential", "-", "-", "-")), func(p vendor.Params) map[string]string {
		return spelled{}.add("country", p.Country).add("state", words(p.State, "")).add("city", words(p.City, "")).ttl("lifetime", p.TTL, time.Minute)
	}, "session"},
	"dataimpulse": {inUsername(keyed(ownLogin, "__", ";", ".")), func(p vendor.Params) map[string]string {
		return spelled{}.add("cr", p.Country).add("state", words(p.State, "")).add("city", words(p.City, "")).add("zip", p.Zip).
			ttl("sessttl", p.TTL, time.Minute)
	}, "sessid"},
	"evomi": {inPassword(keyed(ownPassword, "_", "_", "-")), func(p vendor.Params) map[string]string {
		return spelled{}.add("country", upper(p.Country)).add("region", words(p.State, ".")).add("city", words(p.City, ".")).add("asn", p.ASN).
			ttl("lifetime", p.TTL, time.Minute)
	}, "session"},
	"massive": {inUsername(keyed(ownLogin, "-", "-", "-")), func(p vendor.Params) map[string]string {
		return spelled{}.add("country", upper(p.Country)).add("subdivision", upper(stateCode(p.State))).add("city", title(p.City)).
			add("zipcode", p.Zip).add("asn", p.ASN).ttl("sessionttl", p.TTL, time.Minute)
	}, "session"},
	"nimble": {inUsername(keyed("account-"+ownLogin, "-", "-", "-")), func(p vendor.Params) map[string]string {
		return spelled{}.add("country", upper(p.Country)).add("state", upper(stateCode(p.State))).add("city", p.City)
	}, "session"},
	"infatica": {inUsername(keyed(ownLogin, "_", "_", "_")), func(p vendor.Params) map[string]string {
		return spelled{}.add("c", upper(p.Country)).add("sd", words(p.State, "-")).add("city", words(p.City, "-"))
	}, "s"},
	"proxyempire": {inPassword(slots("wifi", "country", "", "state", "city")), spellSlots, ""},
	"froxy":       {inPassword(slots(ownPassword, "country", "state", "city", "")), spellSlots, ""},
}

// readNetNut reads LOGIN-TYPE-PLACE[-sid-NUMBER].
func readNetNut(s string) (map[string]string, error) {
	parts := strings.Split(s, "-")
	if len(parts) != 3 && (len(parts) != 5 || parts[3] != "sid") || parts[0] != ownLogin {
		return nil, fmt.Errorf("%q", s)
	}
	got := map[string]string{"type": parts[1], "place": parts[2]}
	if len(parts) == 5 {
		got["sid"] = parts[4]
	}
	return got, nil
}

func spellNetNut(p vendor.Params) map[string]string {
	place, kind := cmp.Or(p.Country, "any"), "res"
	if place == "gb" {
		place = "uk"
	}
	if p.State != "" {
		place += "_" + words(stateName(p.State), "")
	}
	if p.City != "" {
		place, kind = place+"_"+words(p.City, ""), "res_sc"
	}
	return map[string]string{"type": kind, "place": place}
}

// readWebshare reads LOGIN[-cc][-city_CITY](-rotate|-NUMBER): what a part is shows in itself.
func readWebshare(s string) (map[string]string, error) {
	parts := strings.Split(s, "-")
	got := map[string]string{}
	for _, part := range parts[1:] {
		key, value := "session", part
		switch city, isCity := strings.CutPrefix(part, "city_"); {
		case isCity:
			key, value = "city", city
		case part == "rotate":
			key = "rotate"
		case len(part) == 2 && strings.Trim(part, "abcdefghijklmnopqrstuvwxyz") == "":
			key = "country"
		case strings.Trim(part, "0123456789") != "":
			return nil, fmt.Errorf("%q in %q", part, s)
		}
		if err := put(got, key, value); err != nil {
			return nil, err
		}
	}
	return got, nil
}

func spellWebshare(p vendor.Params) map[string]string {
	s := spelled{}.add("country", p.Country).add("city", p.City)
	if p.Session == "" {
		s.add("rotate", "rotate")
	}
	return s
}

// slots reads values by their place between semicolons; a name of "" is a place that stays empty.
func slots(head string, names ...string) func(string) (map[string]string, error) {
	return func(s string) (map[string]string, error) {
		parts := strings.Split(s, ";")
		if len(parts) != 1+len(names) || parts[0] != head {
			return nil, fmt.Errorf("%q", s)
		}
		got := map[string]string{}
		for i, name := range names {
			switch value := parts[i+1]; {
			case value == "":
			case name == "":
				return nil, fmt.Errorf("%q in a place that is not ours: %q", value, s)
			default:
				got[name] = value
			}
		}
		return got, nil
	}
}

func spellSlots(p vendor.Params) map[string]string {
	return spelled{}.add("country", p.Country).add("state", words(inUS(p), "+")).add("city", words(p.City, "+"))
}
