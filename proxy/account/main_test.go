package account

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plain returns an account with a plain password.
func plain(name, password string) *Account {
	return &Account{Name: name, password: &secret{text: &password}}
}

// cheapHash is bcrypt of "hunter2" at the lowest cost.
const cheapHash = "$2a$04$dHl2mmimwvsD9gkgAvL6Je31e.nTTSuarwd8OnW7yYI2gJo1OxUMO"

func hashed(name string) *Account {
	hash := cheapHash
	return &Account{Name: name, password: &secret{text: &hash, bcrypt: true}}
}

// wantError checks that err is there and says each of texts.
func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q lacks %q", err, text)
		}
	}
}
