package proxy

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync/atomic"
)

// certificate is a key pair that follows its files.
type certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
	seen              atomic.Pointer[[2]os.FileInfo] // of the last attempt, good or bad; nil = no file
}

func loadCertificate(certFile, keyFile string) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile}
	return c, c.reload()
}

// reload reads the files; on an error the current pair stays.
func (c *certificate) reload() error {
	stamps := c.stamps()
	c.seen.Store(&stamps)
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("proxy: certificate: %w", err)
	}
	c.current.Store(&pair)
	return nil
}

// changed reports whether the files look different since the last reload: another
// file under the name, another time, or another size.
func (c *certificate) changed() bool {
	seen := c.seen.Load()
	for i, now := range c.stamps() {
		was := seen[i]
		switch {
		case was == nil || now == nil:
			if was != now {
				return true
			}
		case !os.SameFile(was, now), !was.ModTime().Equal(now.ModTime()), was.Size() != now.Size():
			return true
		}
	}
	return false
}

func (c *certificate) stamps() (s [2]os.FileInfo) {
	for i, name := range [2]string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			s[i] = info
		}
	}
	return s
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}
