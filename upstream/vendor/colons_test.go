package vendor

import "testing"

func TestColonsInLogins(t *testing.T) {
	c := LoginConfig{Login: "a:b", Password: "c:d"}
	if _, err := NewLogins(c); err == nil {
		t.Error("Basic credentials cannot hold this login")
	}
	c.Colons = true
	l, err := NewLogins(c)
	if err != nil {
		t.Fatal(err)
	}
	if username, password := l.Make("alice", Params{}); username != "a:b" || password != "c:d" {
		t.Errorf("%q, %q", username, password)
	}
}
