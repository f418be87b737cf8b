package proxy

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// certificate is a key pair that follows its files.
type certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
	seen              atomic.Pointer[[2]fileStamp] // of the last attempt, good or bad
}

type fileStamp struct {
	modified time.Time
	size     int64
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

// changed reports whether the files look different since the last reload.
func (c *certificate) changed() bool { return c.stamps() != *c.seen.Load() }

func (c *certificate) stamps() (s [2]fileStamp) {
	for i, name := range [2]string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			s[i] = fileStamp{info.ModTime(), info.Size()}
		}
	}
	return s
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}
