package admin

import "testing"

func TestUpstreams(t *testing.T) {
	t.Parallel()
	type gateway struct {
		Name string `json:"name"`
	}
	var all []gateway
	addr := start(t, Config{Token: "s3cret", Upstreams: func() any { return append([]gateway{}, all...) }})
	const token = "Authorization: Bearer s3cret"
	if got := raw(t, addr, request("GET /api/v1/upstreams", "", token)); got.status != 200 || got.body != `{"upstreams":[]}`+"\n" {
		t.Errorf("none: %d %s", got.status, got.body)
	}
	all = []gateway{{"a"}, {"b"}}
	if got := raw(t, addr, request("GET /api/v1/upstreams", "", token)); got.status != 200 || got.body != `{"upstreams":[{"name":"a"},{"name":"b"}]}`+"\n" ||
		got.header.Get("Content-Type") != "application/json" {
		t.Errorf("two: %d %s", got.status, got.body)
	}
	if got := raw(t, addr, request("GET /api/v1/upstreams", "")); got.status != 401 {
		t.Errorf("without the token: %d", got.status)
	}
	if got := raw(t, addr, request("POST /api/v1/upstreams", "", token)); got.status != 405 {
		t.Errorf("POST: %d", got.status)
	}
	if got := raw(t, start(t, Config{}), request("GET /api/v1/upstreams", "")); got.status != 404 {
		t.Errorf("not configured: %d", got.status)
	}
}
