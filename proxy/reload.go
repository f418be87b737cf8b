package proxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"maskrelay/proxy/account"
	"maskrelay/proxy/limit"
	"maskrelay/proxy/tunnel"
)

const (
	certInterval = 5 * time.Second // between looks at the certificate's files
	expiryTick   = time.Second     // between looks for expired accounts
)

// Accounts knows the customers: an [account.Store] or an [account.Hook]. Safe for
// concurrent use. What the methods promise is written there.
type Accounts interface {
	Known(name, password string) (a *account.Account, known bool, err error)
	Authenticate(ctx context.Context, name, password string) (*account.Account, error)
	Lookup(name string) (*account.Account, bool)
	Len() int
	Range(f func(*account.Account) bool)
	Expired() []string
	Reload() (account.Change, error)
	Status() (loaded time.Time, lastError error)
	Watch(ctx context.Context, interval time.Duration, f func(account.Change, error))
}

// Reload reads the accounts' and the certificate's files again, now. What is bad
// stays as it was, and the error says why.
func (s *Server) Reload() error {
	var errs []error
	if s.config.Accounts != nil {
		change, err := s.config.Accounts.Reload()
		s.accountsChanged(change, err)
		errs = append(errs, err)
	}
	if s.cert != nil {
		errs = append(errs, s.reloadCertificate())
	}
	return errors.Join(errs...)
}

// watch takes up changed files and ends expired accounts until ctx ends.
func (s *Server) watch(ctx context.Context) {
	var watches sync.WaitGroup
	defer watches.Wait()
	if s.config.Accounts != nil {
		watches.Go(func() { s.config.Accounts.Watch(ctx, expiryTick, s.accountsChanged) })
	}
	if s.config.Shares != nil {
		watches.Go(func() { s.bandwidths.run(ctx) })
	}
	expiry := time.NewTicker(expiryTick)
	defer expiry.Stop()
	certs := time.NewTicker(certInterval)
	defer certs.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-expiry.C:
			if s.config.Accounts != nil {
				s.endAccounts(s.config.Accounts.Expired())
			}
		case <-certs.C:
			if s.cert != nil && s.cert.changed() {
				_ = s.reloadCertificate()
			}
		}
	}
}

func (s *Server) reloadCertificate() error {
	err := s.cert.reload()
	if err != nil {
		s.log.Error().Err(err).Msg("certificate not reloaded; the old one stays")
		return err
	}
	s.log.Info().Msg("certificate reloaded")
	return nil
}

// accountsChanged acts on a reload: connections of accounts that may not have them
// any more end at once.
func (s *Server) accountsChanged(change account.Change, err error) {
	if err != nil {
		s.log.Error().Err(err).Msg("accounts not taken up; what they were before stays")
		return
	}
	s.identities.forget()
	s.bandwidths.renew()
	if s.config.AccountsChanged != nil {
		s.config.AccountsChanged()
	}
	s.endAccounts(change.Ended)
	s.narrow(change.Narrowed)
	s.log.Info().Int("accounts", s.config.Accounts.Len()).Int("added", change.Added).
		Int("removed", change.Removed).Int("modified", change.Modified).Msg("accounts reloaded")
}

func (s *Server) endAccounts(names []string) {
	for _, name := range names {
		if n := s.CloseAccount(name); n > 0 {
			s.log.Info().Str("account", name).Int("connections", n).Msg("connections of an ended account closed")
		}
	}
}

// QuotaUsed closes the connections of a customer whose quota is used up.
func (s *Server) QuotaUsed(key string) {
	if n := s.CloseAccount(key); n > 0 {
		s.log.Info().Str("account", key).Int("connections", n).Msg("quota used up: connections closed")
	}
}

// Load is how many of the relay's slots are taken, and how many there are.
func (s *Server) Load() (taken, most int) { return s.slots.InUse(), s.slots.Max() }

// InUse is how many connections a limiter's key has on this relay.
func (s *Server) InUse(key string) int { return s.config.Limiter.InUse(key) }

// Caps are those in force of a limiter's key.
func (s *Server) Caps(key string) limit.Caps { return s.capsOf(key) }

// CloseAccount closes the connections of a limiter's key on this relay, and returns how
// many there were.
func (s *Server) CloseAccount(key string) int { return s.engine.CloseKey(key) + s.closeKey(key) }

// narrow closes the connections of accounts that are not allowed any more from where
// their customers are.
func (s *Server) narrow(names []string) {
	for _, name := range names {
		a, ok := s.config.Accounts.Lookup(name)
		if !ok {
			continue // has ended, which others see to
		}
		n := s.engine.CloseWhere(func(x tunnel.Exchange) bool {
			t, ok := x.(*tunnelExchange)
			return ok && t.who.key == name && !a.AllowsFrom(t.client.addr())
		})
		n += s.closeConns(func(c *frontConn) bool { return c.key == name && !a.AllowsFrom(c.clientAddr()) })
		if n > 0 {
			s.log.Info().Str("account", name).Int("connections", n).Msg("connections from addresses that are not allowed any more closed")
		}
	}
}
