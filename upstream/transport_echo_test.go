package upstream

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
)

func TestDropEchoes(t *testing.T) {
	login := basic("customer-acme-cc-us", "p4ssword-long")
	for name, c := range map[string]struct {
		login    string
		in, want http.Header
	}{
		"username": {login, http.Header{"X-User": {"<CUSTOMER-acme-cc-us>"}, "Date": {"now"}}, http.Header{"Date": {"now"}}},
		"password": {login, http.Header{"Set-Cookie": {"a=1", "b=p4ssword-long"}}, http.Header{"Set-Cookie": {"a=1"}}},
		"token":    {login, http.Header{"X-Login": {login[len("Basic "):]}}, http.Header{}},
		"name":     {login, http.Header{"X-Customer-Acme-Cc-Us-Id": {"1"}, "Age": {"1"}}, http.Header{"Age": {"1"}}},
		"a long value": {login, http.Header{"Set-Cookie": {strings.Repeat("x", 300) + "P4SSWORD-long", strings.Repeat("p4ssword", 300)}},
			http.Header{"Set-Cookie": {strings.Repeat("p4ssword", 300)}}},
		"nothing":        {login, http.Header{"X-Login": {"customer"}}, http.Header{"X-Login": {"customer"}}},
		"a plain word":   {basic("customer", "x"), http.Header{"X-Who": {"customer"}}, http.Header{"X-Who": {"customer"}}},
		"no login":       {"", http.Header{"X-Who": {"customer"}}, http.Header{"X-Who": {"customer"}}},
		"another scheme": {"Bearer abcdefgh", http.Header{"X-Who": {"abcdefgh"}}, http.Header{"X-Who": {"abcdefgh"}}},
	} {
		t.Run(name, func(t *testing.T) {
			if echoesOf(c.login).dropEchoes(c.in); !reflect.DeepEqual(c.in, c.want) {
				t.Errorf("%v, want %v", c.in, c.want)
			}
		})
	}
}
