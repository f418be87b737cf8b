package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"maskrelay/proxy"
	"maskrelay/proxy/account"
	"maskrelay/proxy/account/accountapi"
	"maskrelay/proxy/account/redisaccounts"
	"maskrelay/proxy/admin"
	"maskrelay/proxy/fleet"
	"maskrelay/proxy/guess"
	"maskrelay/proxy/limit"
	"maskrelay/proxy/limit/redislimit"
	"maskrelay/proxy/usage"
	"maskrelay/proxy/usage/redisusage"
	"maskrelay/proxy/webhook"
)

// closeKind is the message that has every other relay close an account's connections: the sender's node, a space, the name.
const closeKind = "close"

// warningsAfter Redis answered for the first time its settings are looked at: trouble with messages shows only then.
const warningsAfter = 2 * time.Second

// redisWait bounds how long a start waits for the first word of Redis, or that there is none.
const redisWait = time.Second

// backing is what the front stands on: accounts, limits and usage, each of this relay alone or shared by a fleet.
type backing struct {
	config *Config
	log    zerolog.Logger
	server *proxy.Server // set between newBacking and run

	client *fleet.Client // nil = alone
	alone  chan struct{} // closed when Redis was lost for the first time
	lost   sync.Once     // closes alone
	fleet  *redislimit.Limiter
	store  *redisaccounts.Store // nil unless ACCOUNTS_REDIS
	hook   *account.Hook        // nil unless AUTH=hook
	ledger usage.Ledger
	books  *usage.Books
	sender *webhook.Sender // nil without WEBHOOK_URL

	accounts  proxy.Accounts // nil where there are none
	limiter   limit.Limiter
	addresses limit.Addresses
	shares    limit.Shares // nil = alone
	logins    *guess.Throttle
	meter     *usage.Meter
	collect   []prometheus.Collector
}

// newBacking builds the parts. Nothing runs yet, but the accounts in Redis are asked for and the usage file is open:
// close it if run is never called.
func newBacking(cfg *Config, logger zerolog.Logger) (_ *backing, err error) {
	b := &backing{config: cfg, log: logger, meter: usage.NewMeter(), alone: make(chan struct{})}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if err := b.buildLimits(); err != nil {
		return nil, err
	}
	if err := b.buildAccounts(); err != nil {
		return nil, err
	}
	if err := b.buildWebhook(); err != nil {
		return nil, err
	}
	return b, b.buildUsage()
}

// buildLimits makes the limits of this relay alone, or of the fleet.
func (b *backing) buildLimits() error {
	if cfg := b.config.Guess; cfg.PerAddress > 0 || cfg.PerName > 0 {
		b.logins = guess.New(guess.Config{PerAddress: cfg.PerAddress, PerName: cfg.PerName})
		b.collect = append(b.collect, b.logins)
	}
	if b.config.Fleet == nil {
		b.limiter = limit.NewMemory()
		b.addresses = limit.NewAddresses(b.config.User.MaxIPsWindow)
		return nil
	}
	fc := *b.config.Fleet
	fc.Changed, fc.Totals = b.redisChanged, b.totals
	client, err := fleet.Open(fc)
	if err != nil {
		return err
	}
	b.client = client
	b.fleet = redislimit.New(redislimit.Config{
		Client: client, Down: redislimit.DownPolicy(b.config.Redis.Down), Window: b.config.User.MaxIPsWindow,
	})
	b.limiter, b.addresses, b.shares = b.fleet, b.fleet, redislimit.NewShares(client)
	b.collect = append(b.collect, client, b.fleet)
	client.Subscribe(closeKind, func(body string) {
		if from, name, _ := strings.Cut(body, " "); from != client.Node() { // here it is done, and customers may be back
			b.logClosed(name, b.server.CloseAccount(name))
		}
	})
	return nil
}

// buildAccounts makes what knows the customers.
func (b *backing) buildAccounts() (err error) {
	switch b.config.Auth.Mode {
	case AuthHook:
		hc := b.config.hookConfig()
		hc.InUse = func(name string) bool { return b.server.InUse(name) > 0 }
		hc.Trouble = func(err error) { b.log.Warn().Err(err).Msg("the hook cannot be used; known accounts live on") }
		if b.hook, err = account.NewHook(hc); err != nil {
			return err
		}
		b.accounts = b.hook
	case AuthAccounts:
		store := b.config.Accounts
		if b.config.Auth.InRedis {
			b.store = redisaccounts.New(b.client)
			sc := b.config.accountStore()
			sc.Source = redisaccounts.Source(b.store, b.client)
			if store, err = account.NewStore(sc); err != nil {
				return err
			}
		}
		b.accounts = store
	}
	return nil
}

func (b *backing) buildWebhook() error {
	w := b.config.Webhook
	if w.WebhookURL == "" {
		return nil
	}
	sender, err := webhook.New(webhook.Config{URL: w.WebhookURL.Reveal(), Secret: w.WebhookSecret.Reveal(), Trouble: func(err error) {
		if err != nil {
			b.log.Warn().Err(err).Msg("webhook not delivered; it is tried again")
			return
		}
		b.log.Info().Msg("webhooks are delivered again")
	}})
	if err != nil {
		return err
	}
	b.sender = sender
	b.collect = append(b.collect, sender)
	return nil
}

// buildUsage opens the ledger.
func (b *backing) buildUsage() error {
	node, err := os.Hostname()
	if err != nil {
		node = "relay"
	}
	node += "~" + strconv.FormatInt(time.Now().UnixNano(), 36)
	switch {
	case b.client != nil:
		b.ledger, node = redisusage.New(b.client), b.client.Node()
	case b.config.UsageFile != "":
		if b.ledger, err = usage.OpenFile(b.config.UsageFile); err != nil {
			return fmt.Errorf("%sUSAGE_FILE: %w", envPrefix, err)
		}
	default:
		b.ledger = usage.NewMemory()
	}
	b.books = usage.NewBooks(usage.BooksConfig{
		Meter: b.meter, Ledger: b.ledger, Node: node, Quota: b.quotaOf,
		InUse:     func(name string) bool { return b.server.InUse(name) > 0 },
		Exhausted: func(name string) { b.server.QuotaUsed(name) },
		Crossed:   b.crossed, Trouble: b.bookingTrouble,
	})
	b.collect = append(b.collect, b.books)
	return nil
}

// quotaOf is the quota in force of an account, or of a customer who needs none.
func (b *backing) quotaOf(name string) (usage.Quota, bool) {
	u := b.config.User
	q := usage.Quota{Bytes: int64(u.UserQuota), Period: usage.Period(u.UserQuotaPeriod)}
	if b.accounts == nil {
		return q, true
	}
	a, ok := b.accounts.Lookup(name)
	if !ok {
		return usage.Quota{}, false
	}
	if a.Quota > 0 {
		q.Bytes = a.Quota
	}
	if a.QuotaPeriod != "" {
		q.Period = usage.Period(a.QuotaPeriod)
	}
	return q, true
}

// crossed tells of a quota that is nearly, or wholly, used up.
func (b *backing) crossed(e usage.Event) {
	b.log.Info().Str("account", e.Account).Str("event", e.Kind).Int64("quota", e.Quota).Int64("used", e.Used).
		Str("period", e.Period).Msg("quota")
	if b.sender != nil {
		b.sender.Send(e, e.ID())
	}
}

func (b *backing) bookingTrouble(err error) {
	if err != nil {
		b.log.Warn().Err(fleet.Explain(err)).Msg("usage cannot be booked; it is kept in memory until it can")
		return
	}
	b.log.Info().Msg("usage is booked again")
}

// redisChanged tells of Redis's loss and return: one line each.
func (b *backing) redisChanged(up bool, err error) {
	if up {
		b.log.Info().Int("relays", b.client.Relays()).Msg("redis answers: limits are the fleet's")
		return
	}
	b.lost.Do(func() { close(b.alone) })
	b.log.Warn().Err(err).Str("redis_down", string(b.config.Redis.Down)).Msg("redis does not answer: limits are decided here")
}

// totals is what the other relays may know of this one.
func (b *backing) totals() fleet.Totals {
	if b.server == nil {
		return fleet.Totals{}
	}
	connections, most := b.server.Load()
	return fleet.Totals{Connections: connections, Limit: most}
}

// complete puts the parts into the front's configuration. The front is then to be set before run.
func (b *backing) complete(c *proxy.Config) {
	c.Limiter, c.Addresses, c.Shares = b.limiter, b.addresses, b.shares
	c.Accounts, c.Logins, c.Meter = b.accounts, b.logins, b.meter
	c.AccountsChanged = b.books.Refresh
}

// run keeps everything alive until ctx ends, and then ends it in order: what moved last is booked, events go out, and
// leases go back while there is still a way to Redis.
func (b *backing) run(ctx context.Context) {
	defer b.close()
	var stops []func()
	start := func(f func(context.Context)) {
		ctx, cancel := context.WithCancel(context.Background())
		var one sync.WaitGroup
		one.Go(func() { f(ctx) })
		stops = append(stops, func() { cancel(); one.Wait() })
	}
	if b.client != nil {
		start(b.fleet.Run)
		start(b.client.Run)
		stops[0], stops[1] = stops[1], stops[0] // what was leased goes back while somebody can be told
		start(b.lookAtRedis)
	}
	if b.sender != nil {
		start(b.sender.Run)
	}
	start(b.books.Run)
	<-ctx.Done()
	for i := len(stops) - 1; i >= 0; i-- {
		stops[i]()
	}
}

// awaitRedis waits, while run runs, until limits are the fleet's or it is known that they are decided here. A relay that
// lets customers in before would give each his whole cap beside what the other relays gave him.
func (b *backing) awaitRedis(ctx context.Context) {
	if b.client == nil {
		return
	}
	timer := time.NewTimer(redisWait)
	defer timer.Stop()
	select {
	case <-b.fleet.Settled():
	case <-b.alone:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// lookAtRedis logs settings of Redis with which the fleet works less well, once.
func (b *backing) lookAtRedis(ctx context.Context) {
	tick := time.NewTicker(warningsAfter)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !b.client.Up() {
			continue
		}
		for _, w := range b.client.Warnings(ctx) {
			b.log.Warn().Msg("redis: " + w)
		}
		return
	}
}

// close gives back what run, or a start that failed, leaves.
func (b *backing) close() {
	var errs []error
	if b.ledger != nil {
		errs = append(errs, b.ledger.Close())
	}
	if b.hook != nil {
		b.hook.Close()
	}
	if b.client != nil {
		errs = append(errs, b.client.Close())
	}
	if err := errors.Join(errs...); err != nil {
		b.log.Error().Err(err).Msg("not all was put away in order")
	}
}

// closeConnections ends an account's connections everywhere, and returns how many there were here.
func (b *backing) closeConnections(ctx context.Context, name string) (int, error) {
	n := b.server.CloseAccount(name)
	b.logClosed(name, n)
	if b.client == nil {
		return n, nil
	}
	if err := b.client.Publish(ctx, closeKind, b.client.Node()+" "+name); err != nil {
		return n, fleet.Explain(err)
	}
	return n, nil
}

func (b *backing) logClosed(name string, n int) {
	if n > 0 {
		b.log.Info().Str("account", name).Int("connections", n).Msg("connections closed by the API")
	}
}

// serveAdmin adds the parts' endpoints and series to the admin server.
func (b *backing) serveAdmin(c *admin.Config) {
	c.CloseConnections = b.closeConnections
	c.Usage = b.report
	if b.accounts == nil {
		return
	}
	c.Accounts = accountapi.New(accountapi.Config{Accounts: b.accounts, Store: b.store, Check: b.config.poolCheck()})
	c.AccountStatus = b.status
}

// report is what an account, or every one, has moved.
func (b *backing) report(ctx context.Context, name string, since time.Time) ([]admin.UsageRow, error) {
	rows, err := b.books.Report(ctx, usage.Query{Account: name, Since: since})
	switch {
	case err != nil && b.client != nil:
		return nil, fmt.Errorf("usage: %w", fleet.Explain(err))
	case err != nil:
		return nil, err
	}
	out := make([]admin.UsageRow, len(rows))
	for i, r := range rows {
		out[i] = admin.UsageRow{
			Account: r.Account, Sent: r.Sent, Received: r.Received, Connections: r.Connections, From: r.From, To: r.To,
		}
	}
	return out, nil
}

// status is what an account does on this relay.
func (b *backing) status(name string) admin.AccountStatus {
	s := admin.AccountStatus{Connections: b.server.InUse(name), ConnectionsLimit: b.server.Caps(name).MaxConns}
	if c := b.meter.Find(name); c != nil {
		s.Sent, s.Received, _ = c.Totals()
	}
	if used, ok := b.books.Used(name); ok {
		s.QuotaUsed = &used
	}
	return s
}
