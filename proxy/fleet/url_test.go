package fleet_test

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"maskrelay/integration/lab"
	"maskrelay/proxy/fleet"
)

const (
	secretUser = "Uvwxyz"
	secretPass = `p@ss/w#rd?%&:{}"' ü`
)

// rights are those that the documentation names.
var rights = []string{"~maskrelay:*", "&maskrelay:*", "+@all", "-@dangerous"}

func removeAll(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

// tellsNothing fails if an error has something of the URL's user, password or a slip of them.
func tellsNothing(t *testing.T, err error) {
	t.Helper()
	for _, secret := range []string{secretUser, secretPass, url.QueryEscape(secretPass), url.PathEscape(secretPass), "hunter2", "secret"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%q holds %q", err, secret)
		}
	}
}

func TestOpenRefusesBadURLs(t *testing.T) {
	cases := []struct{ url, want string }{
		{"", "not a URL of a Redis"},
		{"hunter2", "not a URL of a Redis"},
		{"http://Uvwxyz:hunter2@host", "not a URL of a Redis"},
		{"redis-sentinel://:hunter2@host", "not a URL of a Redis"},
		{"redis:hunter2@host", "percent-encoded"},
		{"redis://", "no host"},
		{"redis://:hunter2@", "no host"},
		{"redis://:hunter2@:6379", "no host"},
		{"redis://:hunter2@%zz", "not a URL"},
		{"redis://Uvwxyz:hunt\x00er2@host", "not a URL"},
		{"redis://Uvwxyz:hunter2/secret@host:6379", "not a URL"},
		{"redis://Uvwxyz:12/hunter2@host:6379", "percent-encoded"},
		{"redis://Uvwxyz:12#hunter2@host:6379", "percent-encoded"},
		{"redis://Uvwxyz:12?hunter2@host:6379", "percent-encoded"},
		{"redis://hunter2@host", "no password"},
		{"redis://Uvwxyz:@host", "no password"},
		{"redis://Uvwxyz:hunter2@host:0", "port"},
		{"redis://Uvwxyz:hunter2@host:65536", "port"},
		{"redis://Uvwxyz:hunter2@host/secret", "not a number"},
		{"redis://Uvwxyz:hunter2@host/-1", "not a number"},
		{"redis://Uvwxyz:hunter2@host/1/2", "not a number"},
		{"redis://host?password=hunter2", "nothing else"},
		{"redis://host?skip_verify=true", "nothing else"},
		{"redis://host?%zz", "query"},
		{"redis://host?db=1", "nothing else"},
		{"redis://host?addr=hunter2", "host:port"},
		{"redis://host?addr=:1", "host:port"},
		{"redis://host?addr=host:secret", "port"},
		{"redis://host/1?addr=host2:6379", "no numbered databases"},
		{"unix://host/hunter2", "absolute path"},
		{"unix://", "absolute path"},
		{"unix:///run/redis.sock?addr=host:1", "nothing else"},
		{"unix:///run/redis.sock?db=hunter2", "not a number"},
		{"redis://host?addr=" + strings.Join(addrs(70), "&addr="), "more than 64"},
	}
	for _, tc := range cases {
		c, err := fleet.Open(fleet.Config{URL: tc.url})
		if err == nil {
			t.Errorf("%q was taken", tc.url)
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			continue
		}
		if !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: %v, want %s", tc.url, err, tc.want)
		}
		tellsNothing(t, err)
	}
}

func addrs(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("h%d:1", i))
	}
	return all
}

func TestOpenRefusesBadSettings(t *testing.T) {
	dir := t.TempDir()
	noPEM := filepath.Join(dir, "none.pem")
	if err := os.WriteFile(noPEM, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		config fleet.Config
		want   string
	}{
		{fleet.Config{URL: "redis://host", CAFile: noPEM}, "rediss://"},
		{fleet.Config{URL: "rediss://host", CAFile: noPEM}, "no certificate"},
		{fleet.Config{URL: "rediss://host", CAFile: filepath.Join(dir, "missing")}, "no such file"},
		{fleet.Config{URL: "redis://host", Prefix: "a{b"}, "prefix"},
		{fleet.Config{URL: "redis://host", Prefix: strings.Repeat("a", 65)}, "prefix"},
	}
	for _, tc := range cases {
		if _, err := fleet.Open(tc.config); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %s", tc.config, err, tc.want)
		}
	}
}

func TestWaysToRedis(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "redis.sock")
	simple := lab.StartRedis(t, "--unixsocket", socket, "--databases", "4")
	simple.AddUser(t, secretUser, secretPass, rights...)
	secure := lab.StartRedisTLS(t)
	secure.AddUser(t, secretUser, secretPass, rights...)
	protected := lab.StartRedis(t, "--requirepass", secretPass)
	cases := []struct {
		name   string
		config fleet.Config
	}{
		{"plain", fleet.Config{URL: simple.URL()}},
		{"no port and path", fleet.Config{URL: "redis://" + simple.Addr}},
		{"user", fleet.Config{URL: simple.UserURL(secretUser, secretPass)}},
		{"password alone", fleet.Config{URL: protected.UserURL("", secretPass)}},
		{"database", fleet.Config{URL: "redis://" + simple.Addr + "/3"}},
		{"socket", fleet.Config{URL: "unix://" + socket + "?db=1"}},
		{"socket with user", fleet.Config{URL: (&url.URL{Scheme: "unix", User: url.UserPassword(secretUser, secretPass), Path: socket}).String()}},
		{"TLS", fleet.Config{URL: secure.URL(), CAFile: secure.CAFile}},
		{"TLS with user", fleet.Config{URL: secure.UserURL(secretUser, secretPass), CAFile: secure.CAFile}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			heard := make(chan string, 1)
			r := open(t, tc.config, func(r *relay) { r.Subscribe("test", func(body string) { offer(heard, body) }) })
			r.told(t, true)
			r.works(t)
			lab.Wait(t, patience, "a message", func() bool {
				return r.Publish(t.Context(), "test", "x") == nil && len(heard) > 0
			})
		})
	}
	if got := simple.Do(t, "INFO", "keyspace"); !strings.Contains(got[0], "db3:") || !strings.Contains(got[0], "db1:") {
		t.Errorf("databases in use: %q", got)
	}
}

func offer(ch chan string, s string) {
	select {
	case ch <- s:
	default:
	}
}

func TestRefusalsAreToldInPlainWords(t *testing.T) {
	server, secure := lab.StartRedis(t), lab.StartRedisTLS(t)
	other, protected := lab.StartRedisTLS(t), lab.StartRedis(t, "--requirepass", secretPass)
	user := func(name string, rules ...string) string {
		server.AddUser(t, name, secretPass, rules...)
		return server.UserURL(name, secretPass)
	}
	with := func(password string) string { return server.UserURL(secretUser, password) }
	cases := []struct {
		name   string
		config fleet.Config
		want   string
	}{
		{"wrong user", fleet.Config{URL: with(secretPass)}, "refuses the user or the password"},
		{"wrong default password", fleet.Config{URL: protected.UserURL("", "hunter2")}, "refuses the user or the password"},
		{"no scripts", fleet.Config{URL: user(secretUser+"1", "~*", "&*", "+@all", "-@scripting")}, "may not run the command eval"},
		{"no keys", fleet.Config{URL: user(secretUser+"2", "~secret:*", "&*", "+@all")}, "lacks a permission"},
		{"no such database", fleet.Config{URL: "redis://" + server.Addr + "/99"}, "no database"},
		{"nothing there", fleet.Config{URL: "redis://" + secretUser + ":hunter2@" + lab.FreeAddr(t)}, "nothing listens"},
		{"no such host", fleet.Config{URL: "redis://hunter2.invalid"}, "no address"},
		{"no socket", fleet.Config{URL: "unix://" + filepath.Join(t.TempDir(), "hunter2")}, "no socket"},
		{"without TLS", fleet.Config{URL: "redis://" + secure.Addr}, "ended the connection"},
		{"TLS alone", fleet.Config{URL: "rediss://" + server.Addr}, "no answer"},
		{"unknown authority", fleet.Config{URL: secure.URL()}, "not trusted"},
		{"other authority", fleet.Config{URL: secure.URL(), CAFile: other.CAFile}, "not trusted"},
		{"no cluster", fleet.Config{URL: "redis://" + server.Addr + "?addr=" + server.Addr}, "of no cluster"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			r := open(t, tc.config, nil)
			err := r.down(t)
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("told %q, want %s; it was %v", err, tc.want, errors.Unwrap(err))
			}
			tellsNothing(t, err)
			for i, call := range []func() error{
				func() error { return r.Publish(t.Context(), "test", "x") },
				func() error { _, err := r.Members(t.Context()); return err },
			} {
				if err := call(); err != nil {
					tellsNothing(t, err)
				} else if i > 0 {
					t.Error("a call worked")
				}
			}
		})
	}
}
