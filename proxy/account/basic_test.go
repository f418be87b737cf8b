package account

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestParseBasic(t *testing.T) {
	tests := []struct {
		name, header string
		want         Credentials
		err          error
	}{
		{"rfc 7617", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Credentials{"Aladdin", "open sesame"}, nil},
		{"lower case", "basic " + b64("a:b"), Credentials{"a", "b"}, nil},
		{"upper case", "BASIC " + b64("a:b"), Credentials{"a", "b"}, nil},
		{"no padding", "Basic " + strings.TrimRight(b64("a:bc"), "="), Credentials{"a", "bc"}, nil},
		{"colons in the password", "Basic " + b64("a::b:c"), Credentials{"a", ":b:c"}, nil},
		{"empty password", "Basic " + b64("a:"), Credentials{"a", ""}, nil},
		{"empty username", "Basic " + b64(":b"), Credentials{"", "b"}, nil},
		{"latin 1", "Basic " + b64("a:\xe9"), Credentials{"a", "\xe9"}, nil},
		{"utf-8", "Basic " + b64("a:é€"), Credentials{"a", "é€"}, nil},
		{"spaces around", "  Basic   " + b64("a:b") + " ", Credentials{"a", "b"}, nil},
		{"longest username", "Basic " + b64(strings.Repeat("u", 512)+":p"), Credentials{strings.Repeat("u", 512), "p"}, nil},
		{"absent", "", Credentials{}, ErrNoCredentials},
		{"blank", "  ", Credentials{}, ErrNoCredentials},
		{"bearer", "Bearer abc", Credentials{}, ErrNoCredentials},
		{"only base64", b64("a:b"), Credentials{}, ErrNoCredentials},
		{"scheme only", "Basic", Credentials{}, ErrMalformed},
		{"scheme and space", "Basic ", Credentials{}, ErrMalformed},
		{"no base64", "Basic a:b", Credentials{}, ErrMalformed},
		{"url alphabet", "Basic " + strings.NewReplacer("+", "-", "/", "_").Replace(b64("a:\xfb\xff\xfe")), Credentials{}, ErrMalformed},
		{"half padding", "Basic YTpiYw=", Credentials{}, ErrMalformed},
		{"two tokens", "Basic " + b64("a:b") + " " + b64("a:b"), Credentials{}, ErrMalformed},
		{"line end inside", "Basic YTp\r\niYw==", Credentials{}, ErrMalformed},
		{"no colon", "Basic " + b64("alice"), Credentials{}, ErrMalformed},
		{"control byte in the username", "Basic " + b64("a\x00:b"), Credentials{}, ErrMalformed},
		{"control byte in the password", "Basic " + b64("a:b\r\nX: y"), Credentials{}, ErrMalformed},
		{"delete", "Basic " + b64("a:\x7f"), Credentials{}, ErrMalformed},
		{"username too long", "Basic " + b64(strings.Repeat("u", 513)+":p"), Credentials{}, ErrMalformed},
		{"too long", "Basic " + b64("a:"+strings.Repeat("p", 3100)), Credentials{}, ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseBasic([]byte(tt.header))
			if !errors.Is(err, tt.err) || got != tt.want {
				t.Errorf("ParseBasic is %q %q, %v; want %q %q, %v",
					got.Username, got.Password, err, tt.want.Username, tt.want.Password, tt.err)
			}
		})
	}
}

func TestCredentialsDoNotPrint(t *testing.T) {
	c := Credentials{"alice", "hunter2"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		for _, value := range []any{c, &c, struct{ C Credentials }{c}} {
			if text := fmt.Sprintf(verb, value); strings.Contains(text, "hunter2") {
				t.Errorf("%s of %T prints %s", verb, value, text)
			}
		}
	}
}

func FuzzParseBasic(f *testing.F) {
	for _, seed := range []string{"", "Basic", "Basic YTpi", "basic YTo=", "Basic YTpiYw==", "Bearer x", "Basic \xff", "Basic YTp\niYw=="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		c, err := ParseBasic([]byte(header))
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNoCredentials) || c != (Credentials{}) {
				t.Fatalf("%q: unnamed error %v, or credentials with it", header, err)
			}
			return
		}
		if strings.Contains(c.Username, ":") || len(c.Username) > maxUsername || hasControl(c.Username+c.Password) {
			t.Fatalf("%q gave bad credentials", header)
		}
		if again, err := ParseBasic([]byte("Basic " + b64(c.Username+":"+c.Password))); err != nil || again != c {
			t.Fatalf("%q does not survive a round: %v", header, err)
		}
	})
}

func BenchmarkParseBasic(b *testing.B) {
	header := "Basic " + b64("customer7391:pw-5fc1e8d2")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseBasic([]byte(header)); err != nil {
			b.Fatal(err)
		}
	}
}
