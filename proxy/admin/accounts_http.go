package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// queryTimeout bounds what one request asks of Redis, a ledger or a hook.
	queryTimeout = 5 * time.Second
	// changeTimeout bounds one that writes, and that may hash a password first.
	changeTimeout = 10 * time.Second
	// maxQueries is how many requests for accounts or usage are answered at once.
	maxQueries = 16
	// maxChanges is how many accounts are written at once: each may take a password hash,
	// which is some 50 ms of a processor.
	maxChanges = 4

	defaultLimit = 100
	maxLimit     = 1000

	typeJSON  = "application/json"
	typeMerge = "application/merge-patch+json"
)

// routeAccounts adds the endpoints of accounts, connections and usage.
func (h *handler) routeAccounts() {
	const one = accountsPath + "/" + nameSegment
	if api := h.config.Accounts; api != nil {
		denial := api.ReadOnly()
		list := route{guarded: true, denial: denial, serve: reads(h.query(h.listAccounts))}
		account := route{guarded: true, denial: denial, serve: reads(h.query(h.getAccount))}
		if denial == "" {
			list.serve = append(list.serve, endpoint{http.MethodPost, h.change(h.writeAccount)})
			account.serve = append(account.serve,
				endpoint{http.MethodPut, h.change(h.writeAccount)},
				endpoint{http.MethodPatch, h.change(h.writeAccount)},
				endpoint{http.MethodDelete, h.change(h.deleteAccount)})
		}
		h.routes[accountsPath], h.routes[one] = list, account
	}
	if h.config.CloseConnections != nil {
		h.routes[one+"/connections"] = route{
			guarded: true, serve: []endpoint{{http.MethodDelete, h.query(h.closeConnections)}},
		}
	}
	if h.config.Usage != nil {
		h.routes["/api/v1/usage"] = route{guarded: true, serve: reads(h.query(h.serveUsage))}
	}
}

// query bounds how many requests run, and for how long.
func (h *handler) query(serve http.HandlerFunc) http.HandlerFunc {
	return bounded(h.queries, queryTimeout, serve)
}

// change is query for requests that are dear.
func (h *handler) change(serve http.HandlerFunc) http.HandlerFunc {
	return bounded(h.changes, changeTimeout, serve)
}

func bounded(slots chan struct{}, limit time.Duration, serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			w.Header().Set("Retry-After", "1")
			writeError(w, http.StatusServiceUnavailable, "too many such requests at once")
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		serve(w, r.WithContext(ctx))
	}
}

func (h *handler) listAccounts(w http.ResponseWriter, r *http.Request) {
	values, err := parameters(r, "limit", "cursor", "prefix")
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	q := AccountQuery{Prefix: values.Get("prefix"), Cursor: values.Get("cursor"), Limit: defaultLimit}
	if text := values.Get("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 1 || q.Limit > maxLimit {
			writeError(w, http.StatusBadRequest, fmt.Sprintf("limit: a number from 1 to %d", maxLimit))
			return
		}
	}
	page, err := h.config.Accounts.List(r.Context(), q)
	if err != nil {
		writeAccountError(w, err)
		return
	}
	objects := make([]json.RawMessage, 0, len(page.Accounts))
	for _, row := range page.Accounts {
		objects = append(objects, h.object(row))
	}
	writeJSON(w, http.StatusOK, struct {
		Accounts []json.RawMessage `json:"accounts"`
		Next     string            `json:"next"`
	}{objects, page.Next})
}

func (h *handler) getAccount(w http.ResponseWriter, r *http.Request) {
	row, err := h.config.Accounts.Get(r.Context(), r.PathValue("name"))
	if err != nil {
		writeAccountError(w, err)
		return
	}
	h.writeRow(w, http.StatusOK, row)
}

// writeAccount serves POST, PUT and PATCH.
func (h *handler) writeAccount(w http.ResponseWriter, r *http.Request) {
	write := AccountWrite{Name: r.PathValue("name"), Merge: r.Method == http.MethodPatch}
	types := []string{typeJSON}
	if write.Merge {
		types = append(types, typeMerge)
	}
	no := checkType(w, r, types)
	if no == nil {
		write.Only, no = preconditions(r.Header)
	}
	if no == nil {
		write.Body, no = readBody(r)
	}
	if no != nil {
		writeError(w, no.status, no.text)
		return
	}
	row, created, err := h.config.Accounts.Write(r.Context(), write)
	switch {
	case err != nil:
		writeAccountError(w, err)
	case created:
		w.Header().Set("Location", accountsPath+"/"+url.PathEscape(row.Name))
		h.writeRow(w, http.StatusCreated, row)
	default:
		h.writeRow(w, http.StatusOK, row)
	}
}

func (h *handler) deleteAccount(w http.ResponseWriter, r *http.Request) {
	only, no := preconditions(r.Header)
	if no != nil {
		writeError(w, no.status, no.text)
		return
	}
	if err := h.config.Accounts.Delete(r.Context(), r.PathValue("name"), only); err != nil {
		writeAccountError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *handler) closeConnections(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if h.config.Accounts != nil {
		if ok, err := h.config.Accounts.Exists(r.Context(), name); err != nil || !ok {
			writeAccountError(w, orElse(err, ErrNoAccount))
			return
		}
	}
	closed, err := h.config.CloseConnections(r.Context(), name)
	if err != nil {
		writeError(w, http.StatusServiceUnavailable,
			fmt.Sprintf("%d connections closed here; other relays may not have been told: %v", closed, err))
		return
	}
	writeJSON(w, http.StatusOK, map[string]int{"closed": closed})
}

// writeRow answers with one account.
func (h *handler) writeRow(w http.ResponseWriter, status int, row AccountRow) {
	if row.Version != "" {
		w.Header().Set("ETag", strconv.Quote(row.Version))
	}
	writeJSON(w, status, h.object(row))
}

// object adds to an account what it does and where it is from.
func (h *handler) object(row AccountRow) json.RawMessage {
	more := struct {
		*AccountStatus
		Source  string `json:"source"`
		Version string `json:"version,omitempty"`
	}{Source: row.Source, Version: row.Version}
	if h.config.AccountStatus != nil {
		status := h.config.AccountStatus(row.Name)
		more.AccountStatus = &status
	}
	added, err := json.Marshal(more)
	object, ok := bytes.CutSuffix(bytes.TrimSpace(row.Object), []byte("}"))
	if err != nil || !ok {
		return row.Object
	}
	if object = bytes.TrimSpace(object); len(object) > 1 { // not of the empty object
		object = append(slices.Clone(object), ',')
	}
	return append(object, added[1:]...)
}

// parameters returns the query of r, whose keys must be among known and come once.
func parameters(r *http.Request, known ...string) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errors.New("the query is malformed")
	}
	for key, value := range values {
		if !slices.Contains(known, key) || len(value) != 1 {
			return nil, errors.New("the parameters are " + strings.Join(known, ", ") + ", each once at the most")
		}
	}
	return values, nil
}

// checkType wants one of some content types.
func checkType(w http.ResponseWriter, r *http.Request, types []string) *refusal {
	got, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset, given := params["charset"]
	if err == nil && slices.Contains(types, got) && (!given || strings.EqualFold(charset, "utf-8")) {
		return nil
	}
	if r.Method == http.MethodPatch {
		w.Header().Set("Accept-Patch", strings.Join(types, ", "))
	}
	return &refusal{http.StatusUnsupportedMediaType, "the content type must be " + strings.Join(types, " or ")}
}

// readBody reads a body that is one JSON value.
func readBody(r *http.Request) ([]byte, *refusal) {
	body, err := io.ReadAll(r.Body)
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body must have at most %d bytes", maxBody)}
	}
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, "the body did not arrive"}
	}
	if !json.Valid(body) {
		return nil, &refusal{http.StatusBadRequest, "the body is not JSON"}
	}
	return body, nil
}

// preconditions reads If-Match and If-None-Match (RFC 9110 §13.1).
func preconditions(header http.Header) (Precondition, *refusal) {
	var p Precondition
	bad := &refusal{http.StatusBadRequest, `If-Match must be * or versions in double quotes, If-None-Match must be *`}
	if lines := header.Values("If-None-Match"); len(lines) > 0 {
		if p.Absent = strings.TrimSpace(strings.Join(lines, ",")) == "*"; !p.Absent {
			return p, bad
		}
	}
	lines := header.Values("If-Match")
	if len(lines) == 0 {
		return p, nil
	}
	text := strings.TrimSpace(strings.Join(lines, ","))
	if text == "*" {
		p.Present = true
		return p, nil
	}
	p.Versions = []string{}
	for tag := range strings.SplitSeq(text, ",") { // our versions have no comma
		tag = strings.TrimSpace(tag)
		weak := strings.HasPrefix(tag, "W/")
		tag = strings.TrimPrefix(tag, "W/")
		if len(tag) < 2 || tag[0] != '"' || tag[len(tag)-1] != '"' {
			return p, bad
		}
		if !weak { // which never match
			p.Versions = append(p.Versions, tag[1:len(tag)-1])
		}
	}
	return p, nil
}

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// writeAccountError answers with what an AccountAPI's error means.
func writeAccountError(w http.ResponseWriter, err error) {
	invalid, isInvalid := errors.AsType[*InvalidError](err)
	conflict, isConflict := errors.AsType[*ConflictError](err)
	switch {
	case errors.Is(err, ErrNoAccount):
		writeError(w, http.StatusNotFound, "no such account")
	case errors.Is(err, ErrAccountExists):
		writeError(w, http.StatusConflict, "the account exists already")
	case errors.Is(err, ErrPrecondition):
		writeError(w, http.StatusPreconditionFailed, "the account has another version; read it again")
	case isInvalid:
		writeError(w, http.StatusUnprocessableEntity, invalid.Error())
	case isConflict:
		writeError(w, http.StatusConflict, conflict.Error())
	default:
		writeError(w, http.StatusServiceUnavailable, err.Error())
	}
}
