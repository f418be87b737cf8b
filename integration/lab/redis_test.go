package lab_test

import (
	"slices"
	"strings"
	"testing"

	"maskrelay/integration/lab"
)

func TestRedisDo(t *testing.T) {
	servers := map[string]*lab.Redis{"plain": lab.StartRedis(t), "TLS": lab.StartRedisTLS(t)}
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			server.Do(t, "SET", "key", "a\r\nb")
			if got := server.Do(t, "GET", "key"); !slices.Equal(got, []string{"a\r\nb"}) {
				t.Errorf("GET: %q", got)
			}
			if got := server.Do(t, "GET", "none"); len(got) != 0 {
				t.Errorf("GET of nothing: %q", got)
			}
			if got := server.Do(t, "EVAL", "return {1, {'two', ''}, {}, 'three'}", "0"); !slices.Equal(got, []string{"1", "two", "", "three"}) {
				t.Errorf("EVAL: %q", got)
			}
			server.Kill(t)
			server.Restart(t)
			if got := server.Do(t, "DBSIZE"); !slices.Equal(got, []string{"0"}) {
				t.Errorf("keys after a restart: %q", got)
			}
			if server.CPU(t) < 0 || strings.HasPrefix(server.URL(), "rediss://") != (name == "TLS") {
				t.Errorf("CPU %v, URL %s", server.CPU(t), server.URL())
			}
		})
	}
}
