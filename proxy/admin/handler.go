package admin

import (
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"net/http/pprof"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// maxScrapes is how many scrapes there are at once; one of them runs.
	maxScrapes = 8
	// scrapeTimeout bounds one scrape.
	scrapeTimeout = 10 * time.Second
	// maxProfiles is how many profiles run at once.
	maxProfiles = 4
	// maxProfileSeconds is the longest profile or trace.
	maxProfileSeconds = 300
	// maxBody bounds what any request brings.
	maxBody = 64 << 10
	// maxName bounds the name in a path, in bytes.
	maxName = 4 << 10
)

const (
	pprofPrefix  = "/debug/pprof/"
	accountsPath = "/api/v1/accounts"
	nameSegment  = "{name}"
)

// route is what stands behind one path.
type route struct {
	// serve are the methods, in the order in which they are named to who tries another.
	serve   []endpoint
	guarded bool
	// denial is what the answer to any other method says; empty is the usual text.
	denial string
}

// endpoint is one method of a path.
type endpoint struct {
	method string
	serve  http.HandlerFunc
}

// reads is a route that only shows something.
func reads(serve http.HandlerFunc) []endpoint {
	return []endpoint{{http.MethodGet, serve}, {http.MethodHead, serve}}
}

// find returns what serves a method, nil if nothing does.
func (r route) find(method string) http.HandlerFunc {
	for _, e := range r.serve {
		if e.method == method {
			return e.serve
		}
	}
	return nil
}

// methods lists the methods for the field Allow.
func (r route) methods() string {
	names := make([]string, 0, len(r.serve))
	for _, e := range r.serve {
		names = append(names, e.method)
	}
	return strings.Join(names, ", ")
}

// handler routes by exact path, but for an account's name in it: a mux would answer unclean
// paths with redirects, and a probe that is redirected is a probe that lies.
type handler struct {
	config   Config
	guard    guard
	routes   map[string]route
	profiles chan struct{} // slots
	scrapes  chan struct{} // slots
	gatherer *sharedGatherer
	queries  chan struct{} // slots
	changes  chan struct{} // slots
	reload   sync.Mutex
}

// newHandler builds the routes that config asks for.
func newHandler(config Config, g guard) *handler {
	h := &handler{
		config: config, guard: g, gatherer: &sharedGatherer{gatherer: config.Gatherer, now: time.Now},
		profiles: make(chan struct{}, maxProfiles), scrapes: make(chan struct{}, maxScrapes),
		queries: make(chan struct{}, maxQueries), changes: make(chan struct{}, maxChanges),
	}
	probe := func(serve http.HandlerFunc) route { // OPTIONS is what HAProxy's httpchk sends unless told
		return route{serve: append([]endpoint{{http.MethodOptions, serve}}, reads(serve)...)}
	}
	h.routes = map[string]route{
		"/":        {serve: reads(h.index)},
		"/healthz": probe(serveHealth),
		"/readyz":  probe(h.serveReady),
		"/metrics": {serve: reads(h.metrics())},
	}
	if config.Reload != nil {
		h.routes["/api/v1/reload"] = route{guarded: true, serve: []endpoint{{http.MethodPost, h.serveReload}}}
	}
	if config.Drain != nil {
		h.routes["/api/v1/drain"] = route{guarded: true, serve: []endpoint{{http.MethodPost, h.serveDrain}}}
	}
	if config.Upstreams != nil {
		h.routes["/api/v1/upstreams"] = route{guarded: true, serve: reads(h.serveUpstreams)}
	}
	h.routeAccounts()
	h.routeProfiles()
	return h
}

// routeProfiles adds package pprof.
func (h *handler) routeProfiles() {
	for path, serve := range map[string]http.HandlerFunc{
		"": pprof.Index, "cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace,
		"allocs": pprof.Index, "block": pprof.Index, "goroutine": pprof.Index, "heap": pprof.Index, "mutex": pprof.Index,
		"threadcreate": pprof.Index,
	} {
		h.routes[pprofPrefix+path] = route{guarded: true, serve: reads(h.profile(serve))}
	}
	// go tool pprof asks for symbols by POST.
	symbol := h.profile(pprof.Symbol)
	h.routes[pprofPrefix+"symbol"] = route{guarded: true, serve: append([]endpoint{{http.MethodPost, symbol}}, reads(symbol)...)}
}

// ServeHTTP routes one request. A panic behind it becomes a 500 of that request alone.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			writeError(w, http.StatusInternalServerError, "internal error")
		}
	}()
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	rt, ok := h.route(r)
	if !ok {
		writeError(w, http.StatusNotFound, "no such endpoint")
		return
	}
	serve := rt.find(r.Method)
	if serve == nil {
		w.Header().Set("Allow", rt.methods())
		writeError(w, http.StatusMethodNotAllowed, cmp.Or(rt.denial, "method not allowed"))
		return
	}
	if rt.guarded {
		if no := h.guard.check(r); no != nil {
			switch no.status {
			case http.StatusUnauthorized:
				w.Header().Set("WWW-Authenticate", `Bearer realm="admin"`)
			case http.StatusTooManyRequests:
				w.Header().Set("Retry-After", strconv.Itoa(int(guessPeriod.Seconds())))
			}
			writeError(w, no.status, no.text)
			return
		}
	}
	serve(w, r)
}

// route finds what stands behind r's path as it was sent: another spelling of the same path
// is none, lest who filters paths before this server be fooled. The name of an account in it,
// in which a slash is escaped, becomes r's path value.
func (h *handler) route(r *http.Request) (route, bool) {
	sent := r.URL.EscapedPath()
	if rt, ok := h.routes[sent]; ok && !strings.Contains(sent, nameSegment) {
		return rt, true
	}
	rest, ok := strings.CutPrefix(sent, accountsPath+"/")
	if !ok {
		return route{}, false
	}
	escaped, below, _ := strings.Cut(rest, "/")
	name, err := url.PathUnescape(escaped)
	if err != nil || !isName(name) || strings.HasSuffix(rest, "/") {
		return route{}, false
	}
	path := accountsPath + "/" + nameSegment
	if below != "" {
		path += "/" + below
	}
	r.SetPathValue("name", name)
	rt, ok := h.routes[path]
	return rt, ok
}

// isName reports whether there can be an account, or a customer's login, of that name: such
// are printable and short.
func isName(name string) bool {
	return name != "" && len(name) <= maxName && utf8.ValidString(name) &&
		!strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) })
}

// index lists the endpoints there are.
func (h *handler) index(w http.ResponseWriter, _ *http.Request) {
	var paths []string
	for path, rt := range h.routes {
		if path != "/" && (!strings.HasPrefix(path, pprofPrefix) || path == pprofPrefix) {
			verbs := strings.ReplaceAll(rt.methods(), ", HEAD", "")
			paths = append(paths, path+" ("+strings.TrimPrefix(verbs, "OPTIONS, ")+")")
		}
	}
	slices.Sort(paths)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "maskrelay admin\n\n"+strings.Join(paths, "\n")+"\n") // the reader may leave
}

func serveHealth(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok") // the prober may leave
}

// readiness is the body of /readyz.
type readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons,omitempty"`
}

func (h *handler) serveReady(w http.ResponseWriter, _ *http.Request) {
	var reasons []string
	if h.config.Ready != nil {
		reasons = h.config.Ready()
	}
	status := http.StatusOK
	if len(reasons) > 0 {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, readiness{Ready: len(reasons) == 0, Reasons: reasons})
}

// metrics serves the gatherer; a collector that fails costs its own lines alone. Of gatherings
// that outlive the timeout there is one at most.
func (h *handler) metrics() http.HandlerFunc {
	scrape := promhttp.HandlerFor(h.gatherer, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
	inner := http.TimeoutHandler(newPacedScrapes(scrape), scrapeTimeout, "")
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case h.scrapes <- struct{}{}:
			defer func() { <-h.scrapes }()
			inner.ServeHTTP(&jsonErrors{ResponseWriter: w}, r)
		default:
			writeError(w, http.StatusServiceUnavailable, "too many scrapes at once")
		}
	}
}

func (h *handler) serveReload(w http.ResponseWriter, _ *http.Request) {
	if !h.reload.TryLock() {
		writeError(w, http.StatusConflict, "a reload is under way")
		return
	}
	defer h.reload.Unlock()
	if err := h.config.Reload(); err != nil {
		writeError(w, http.StatusInternalServerError, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, map[string]bool{"reloaded": true})
}

func (h *handler) serveDrain(w http.ResponseWriter, _ *http.Request) {
	h.config.Drain()
	writeJSON(w, http.StatusAccepted, map[string]bool{"draining": true})
}

func (h *handler) serveUpstreams(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"upstreams": h.config.Upstreams()})
}

// profile bounds how many profiles run, and for how long.
func (h *handler) profile(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s := r.URL.Query().Get("seconds"); s != "" {
			if n, err := strconv.ParseFloat(s, 64); err != nil || !(n >= 0 && n <= maxProfileSeconds) {
				writeError(w, http.StatusBadRequest, "seconds: a number from 0 to 300")
				return
			}
		}
		select {
		case h.profiles <- struct{}{}:
			defer func() { <-h.profiles }()
			serve(&jsonErrors{ResponseWriter: w}, r)
		default:
			writeError(w, http.StatusServiceUnavailable, "too many profiles at once")
		}
	}
}

// jsonErrors replaces an inner handler's error page by ours. It must not hide
// http.ResponseController's way to the connection.
type jsonErrors struct {
	http.ResponseWriter
	failed bool
}

// Unwrap is for http.ResponseController.
func (w *jsonErrors) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader sends the header, of an error with our body.
func (w *jsonErrors) WriteHeader(status int) {
	if status < http.StatusBadRequest {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	if !w.failed {
		w.failed = true
		writeError(w.ResponseWriter, status, strings.ToLower(http.StatusText(status)))
	}
}

// Write drops the body of an error, which has been sent.
func (w *jsonErrors) Write(p []byte) (int, error) {
	if w.failed {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// writeError answers with {"error": text}.
func writeError(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, map[string]string{"error": text})
}

// writeJSON answers with v and its exact length.
func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":"internal error"}`)
	}
	header := w.Header()
	header.Del("Content-Encoding")
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the reader may leave
}
