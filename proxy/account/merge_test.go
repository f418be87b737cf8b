package account

import (
	"strings"
	"testing"
)

func TestMerge(t *testing.T) {
	was := mustParseJSON(t, "", strings.Replace(wholeJSON, "{", `{"password":"`+cheapHash+`",`, 1))
	tests := []struct{ name, patch, want string }{
		{"nothing", `{}`, wholeJSON},
		{"a value", ` { "max_conns" : 7 } `, strings.Replace(wholeJSON, "2000", "7", 1)},
		{"back to the default", `{"allow_from": null,"disabled":null,"pool":null}`,
			strings.NewReplacer(`,"allow_from":["203.0.113.0/24","2001:db8::1/128"]`, "", `,"disabled":true`, "", `,"pool":"oxy"`, "").Replace(wholeJSON)},
		{"a list is replaced whole", `{"allow_from":["::1"]}`,
			strings.Replace(wholeJSON, `["203.0.113.0/24","2001:db8::1/128"]`, `["::1/128"]`, 1)},
		{"another pool", `{"pool":"smart","pools":["oxy"]}`, strings.Replace(wholeJSON, `"pool":"oxy","pools":["smart","eu.1"]`, `"pool":"smart","pools":["oxy"]`, 1)},
		{"no choice of pools", `{"pools":null}`, strings.Replace(wholeJSON, `,"pools":["smart","eu.1"]`, "", 1)},
		{"its own name", `{"name":"alice"}`, wholeJSON},
		{"password", `{"password":"sesame"}`, wholeJSON},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := was.Merge([]byte(tt.patch))
			if err != nil {
				t.Fatal(err)
			}
			if string(got.JSON()) != tt.want {
				t.Errorf("got  %s\nwant %s", got.JSON(), tt.want)
			}
			if kept := got.password.equal(was.password); kept != (tt.name != "password") {
				t.Errorf("the password is kept: %v", kept)
			}
		})
	}
	if string(was.JSON()) != wholeJSON || *was.password.text != cheapHash {
		t.Error("the old account was changed")
	}
}

func TestMergeErrors(t *testing.T) {
	was := hashed("alice")
	for patch, want := range map[string]string{
		``:                            "not valid JSON",
		`[]`:                          "must be a JSON object",
		`null`:                        "must be a JSON object",
		`{"name":null}`:               "name: cannot be removed",
		`{"name":"bob"}`:              "name: is that of another account",
		`{"password":null}`:           "password: cannot be removed",
		`{"password":""}`:             "password: must not be empty",
		`{"max_con":null}`:            `did you mean "max_conns"?`,
		`{"quota":null,"quota":null}`: "quota is given twice",
		`{"quota":1,"weight":-1}`:     "weight: must be",
		`{"foo":1,"allow_from":[]}`:   "allow_from: must name a network",
	} {
		got, err := was.Merge([]byte(patch))
		if got != nil {
			t.Errorf("%s was taken", patch)
		}
		wantError(t, err, want)
	}
}

func TestKeepHash(t *testing.T) {
	stored, password := hashed("alice"), "hunter2"
	tests := []struct {
		name    string
		is, was *Account
		kept    bool
	}{
		{"the same", plain("alice", password), stored, true},
		{"another", plain("alice", "other"), stored, false},
		{"longer than bcrypt looks", plain("alice", password+strings.Repeat("x", maxBcrypt)), stored, false},
		{"no old one", plain("alice", password), nil, false},
		{"an old one in plain", plain("alice", password), plain("alice", password), false},
		{"an old one without", plain("alice", password), &Account{Name: "alice"}, false},
		{"without", &Account{Name: "alice"}, stored, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.is.KeepHash(tt.was)
			if kept := got != tt.is && got.password.equal(tt.was.password) && tt.is.password != got.password; kept != tt.kept {
				t.Errorf("kept %v, want %v", kept, tt.kept)
			}
		})
	}
}
