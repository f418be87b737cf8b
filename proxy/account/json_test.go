package account

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const wholeJSON = `{"name":"alice","max_conns":2000,"conn_rate":200.5,"conn_burst":400,"bandwidth":"10MB","quota":"50GB",` +
	`"quota_period":"monthly","max_ips":3,"weight":5,"expires":"2026-12-31T00:00:00Z","allow_from":["203.0.113.0/24","2001:db8::1/128"],` +
	`"pool":"oxy","pools":["smart","eu.1"],"disabled":true}`

func mustParseJSON(t testing.TB, name, data string) *Account {
	t.Helper()
	a, err := ParseJSON(name, []byte(data))
	if err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return a
}

func TestParseJSON(t *testing.T) {
	fromFile, err := ParseFile("", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, called, data string
		want               *Account
	}{
		{"whole", "", strings.Replace(wholeJSON, `"disabled":true`, `"password":"`+cheapHash+`"`, 1), nil},
		{"numbers, spaces, host bits", "alice", "\n{ \"quota\" : 50000000000, \"bandwidth\": 10000000, \"max_conns\" :2000 , \"conn_rate\": 2005e-1, \"conn_burst\": 400," +
			`"quota_period":"monthly","max_ips":3,"weight":5,"password":"` + cheapHash + `","expires":"2026-12-31T01:00:00+01:00","disabled":false,` +
			`"allow_from":["203.0.113.77/24","2001:db8::1","::ffff:198.51.100.0/120"],"pool":"\u006fxy","pools":[ "smart" , "eu.1"]}` + "\n", fromFile[0]},
		{"name only", "", `{"name":"a"}`, &Account{Name: "a"}},
		{"name from outside", "a", `{}`, &Account{Name: "a"}},
		{"name twice", "a", `{"name":"a"}`, &Account{Name: "a"}},
		{"escapes", "", `{"name":"\u0061","password":"p\u00e4\"\\"}`, plain("a", `pä"\`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := mustParseJSON(t, tt.called, tt.data)
			if tt.want != nil && !got.equal(tt.want) {
				t.Errorf("got %s, want %s", got.JSON(), tt.want.JSON())
			}
			if got.HasPassword() != strings.Contains(tt.data, "password") {
				t.Errorf("HasPassword is %v", got.HasPassword())
			}
		})
	}
}

// TestJSONRoundTrip: whatever an account says is read as it was written.
func TestJSONRoundTrip(t *testing.T) {
	if got := string(mustParseJSON(t, "", wholeJSON).JSON()); got != wholeJSON {
		t.Errorf("got  %s\nwant %s", got, wholeJSON)
	}
	fromFile, err := ParseFile("", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	odd := &Account{
		Name: "odd", Bandwidth: 1025, Quota: 1 << 40, ConnRate: 1e-7,
		Expires: time.Date(9999, 12, 31, 23, 59, 59, 1, time.FixedZone("", -3600)),
	}
	for _, a := range append(fromFile, odd, &Account{Name: "bare"}) {
		data := a.JSON()
		back := mustParseJSON(t, a.Name, string(data))
		if !back.sameTerms(a) || back.HasPassword() || strings.Contains(string(data), "password") {
			t.Errorf("%s is read as %s", data, back.JSON())
		}
	}
}

func TestStoredJSON(t *testing.T) {
	want := hashed("alice")
	want.MaxConns = 5
	data, err := want.StoredJSON()
	if err != nil {
		t.Fatal(err)
	}
	if back := mustParseJSON(t, "", string(data)); !back.equal(want) {
		t.Errorf("a hash is stored as %s", data)
	}
	data, err = plain("bob", `a<b>&"c`).StoredJSON()
	if err != nil || strings.Contains(string(data), "a<b>") {
		t.Fatalf("a plain password is stored as %s, %v", data, err)
	}
	bob := mustParseJSON(t, "bob", string(data))
	if !bob.password.bcrypt || bcrypt.CompareHashAndPassword([]byte(*bob.password.text), []byte(`a<b>&"c`)) != nil {
		t.Errorf("the stored hash of a plain password is not its own: %s", data)
	}
	if data, err = (&Account{Name: "c"}).StoredJSON(); err != nil || string(data) != `{"name":"c"}` {
		t.Errorf("without a password: %s, %v", data, err)
	}
	long := strings.Repeat("sesame", 13)
	data, err = plain("dora", long).StoredJSON()
	wantError(t, err, "78 bytes", `"dora"`)
	if data != nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("a password that cannot be hashed gives %s, %v", data, err)
	}
}

func TestParseJSONErrors(t *testing.T) {
	with := func(field string) string { return `{"name":"alice","password":"sesame",` + field + `}` }
	tests := []struct {
		name, called, data string
		want               []string // one for each line of the error
	}{
		{"empty", "a", ``, []string{"account: not valid JSON"}},
		{"html", "a", `<html>sesame</html>`, []string{"not valid JSON"}},
		{"cut", "a", `{"password":"sesame"`, []string{"not valid JSON"}},
		{"two", "a", `{} {}`, []string{"not valid JSON"}},
		{"byte order mark", "a", "\uFEFF{}", []string{"not valid JSON"}},
		{"not utf-8", "a", "{\"password\":\"sesame\xff\"}", []string{"not valid JSON"}},
		{"comment", "a", "{} // sesame", []string{"not valid JSON"}},
		{"null", "a", `null`, []string{"must be a JSON object"}},
		{"list", "a", `[{"name":"a"}]`, []string{"must be a JSON object"}},
		{"string", "a", `"sesame"`, []string{"must be a JSON object"}},
		{"too large", "a", `{"name":"` + strings.Repeat("a", maxJSON) + `"}`, []string{"larger than 65536 bytes"}},
		{"deep", "a", `{"name":` + strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000) + `}`, []string{"not valid JSON"}},
		{"no name", "", `{}`, []string{"account: name: is missing"}},
		{"other name", "bob", `{"name":"alice"}`, []string{"account: name: is that of another account"}},
		{"bad name", "", `{"name":"al ice"}`, []string{"account: name: must be 1 to 64"}},
		{"bad name from outside", "us-state", `{}`, []string{`account: name: must not have the segment "state"`}},
		{"number as name", "", `{"name":5}`, []string{"account: name: must be a string: put it in quotes"}},
		{"null name", "a", `{"name":null}`, []string{"account: name: has no value"}},
		{"empty password", "a", `{"password":""}`, []string{"account: password: must not be empty"}},
		{"control byte", "a", `{"password":"sesame\u0000"}`, []string{"account: password: must not have control bytes"}},
		{"number as password", "a", `{"password":1234567}`, []string{"account: password: must be a string"}},
		{"unknown key", "", with(`"sesame":1`), []string{"account: unknown key; known are name, password"}},
		{"near key", "", with(`"max_con":1`), []string{`account: unknown key "max_con"; did you mean "max_conns"?`}},
		{"capitals", "", with(`"Max_conns":1`), []string{`unknown key "Max_conns"; did you mean "max_conns"?`}},
		{"repeated key", "", with(`"name":"alice"`), []string{"account: name is given twice"}},
		{"max_conns string", "", with(`"max_conns":"5"`), []string{"account: max_conns: must be a whole number from 0 to 2147483647"}},
		{"max_conns negative", "", with(`"max_conns":-5`), []string{"max_conns: must be a whole number"}},
		{"max_conns float", "", with(`"max_conns":5.0`), []string{"max_conns: must be a whole number"}},
		{"max_conns exponent", "", with(`"max_conns":1e3`), []string{"max_conns: must be a whole number"}},
		{"max_conns large", "", with(`"max_conns":2147483648`), []string{"max_conns: must be a whole number"}},
		{"max_conns null", "", with(`"max_conns":null`), []string{"max_conns: has no value"}},
		{"max_conns object", "", with(`"max_conns":{}`), []string{"max_conns: must be a whole number"}},
		{"conn_rate large", "", with(`"conn_rate":1e10`), []string{"conn_rate: must be a number from 0"}},
		{"conn_rate negative", "", with(`"conn_rate":-0.5`), []string{"conn_rate: must be a number"}},
		{"bandwidth bits", "", with(`"bandwidth":"10Mb"`), []string{"bandwidth: is not a size"}},
		{"bandwidth small", "", with(`"bandwidth":10`), []string{"bandwidth: is below 1KB a second"}},
		{"quota", "", with(`"quota":true`), []string{"quota: must be a size such as 10MB"}},
		{"quota_period", "", with(`"quota_period":"day"`), []string{"quota_period: must be lifetime or monthly"}},
		{"max_ips", "", with(`"max_ips":-1`), []string{"max_ips: must be a whole number"}},
		{"weight", "", with(`"weight":1001`), []string{"weight: must be a whole number from 0 to 1000"}},
		{"expires", "", with(`"expires":1798675200`), []string{"expires: must be a time such as"}},
		{"allow_from scalar", "", with(`"allow_from":"203.0.113.0/24"`), []string{"allow_from: must be a list of networks"}},
		{"allow_from null", "", with(`"allow_from":null`), []string{"allow_from: has no value"}},
		{"allow_from empty", "", with(`"allow_from":[ ]`), []string{"allow_from: must name a network"}},
		{"allow_from bad", "", with(`"allow_from":["203.0.113.0/24","sesame",5]`), []string{
			"allow_from: element 2 must be a network", "allow_from: element 3 must be a string"}},
		{"pool", "", with(`"pool":"o-xy"`), []string{"account: pool: must be 1 to 32 of the characters A-Z, a-z, 0-9, '_' and '.', and '-' is none of them"}},
		{"pool null", "", with(`"pool":null`), []string{"account: pool: has no value"}},
		{"pools scalar", "", with(`"pools":"oxy"`), []string{"pools: must be a list of pools"}},
		{"pools null", "", with(`"pools":null`), []string{"pools: has no value"}},
		{"pools empty", "", with(`"pools":[]`), []string{"pools: must name a pool; leave it out to allow none"}},
		{"pools bad", "", with(`"pools":["oxy","a b",5,"oxy"]`), []string{
			`pools: element 2 must be 1 to 32 of the characters`, "pools: element 3 must be a string", "pools: element 4 is there twice"}},
		{"pools many", "", with(`"pools":[` + strings.Repeat(`"a",`, 64) + `"b"]`), []string{"pools: must name at most 64 pools"}},
		{"disabled", "", with(`"disabled":"true"`), []string{"disabled: must be true or false"}},
		{"all at once", "bob", `{"name":"alice","weight":-1,"quota":1,"foo":1}`, []string{
			"unknown key", "name: is that of another", "quota: is below 1KB", "weight: must be"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := ParseJSON(tt.called, []byte(tt.data))
			if a != nil {
				t.Error("an account came with the error")
			}
			wantError(t, err, tt.want...)
			if lines := strings.Split(err.Error(), "\n"); len(lines) != len(tt.want) {
				t.Errorf("%d problems, want %d: %v", len(lines), len(tt.want), err)
			}
			if strings.Contains(err.Error(), "sesame") || strings.Contains(err.Error(), "1234567") {
				t.Errorf("the error quotes a password: %v", err)
			}
		})
	}
}

func TestParseJSONNamesABoundedNumberOfProblems(t *testing.T) {
	for name, data := range map[string]string{
		"keys":     `{"foo":0` + strings.Repeat(`,"foo":0`, 5000) + `}`,
		"elements": `{"allow_from":[0` + strings.Repeat(`,0`, 5000) + `]}`,
	} {
		_, err := ParseJSON("a", []byte(data))
		wantError(t, err, "and more problems")
		if lines := strings.Count(err.Error(), "\n") + 1; lines != maxProblems+1 {
			t.Errorf("%s: %d problems, want %d", name, lines, maxProblems+1)
		}
	}
}

func FuzzParseJSON(f *testing.F) {
	for _, seed := range []string{wholeJSON, `{}`, `{"name":"a","password":"b"}`, `[]`, `{"allow_from":["::1"]}`, `{"quota":1e9}`, `{"pool":"a","pools":["b","."]}`} {
		f.Add("a", []byte(seed))
		f.Add("", []byte(seed))
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		a, err := ParseJSON(name, data)
		if (a == nil) == (err == nil) {
			t.Fatalf("ParseJSON is %v, %v", a, err)
		}
		if err != nil {
			return
		}
		back, err := ParseJSON("", a.JSON())
		if err != nil || !back.sameTerms(a) {
			t.Fatalf("%s is read as %v, %v", a.JSON(), back, err)
		}
	})
}

func BenchmarkParseJSON(b *testing.B) {
	data := []byte(wholeJSON)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseJSON("alice", data); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleAccount_JSON() {
	a, err := ParseJSON("alice", []byte(`{"password": "secret", "max_conns": 2000, "quota": 50000000000}`))
	fmt.Println(string(a.JSON()), err)
	// Output: {"name":"alice","max_conns":2000,"quota":"50GB"} <nil>
}
