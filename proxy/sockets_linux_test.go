package proxy

import (
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// socketOption reads an integer option.
func socketOption(t *testing.T, c syscall.Conn, level, name int) (value int) {
	t.Helper()
	rc, err := c.SyscallConn()
	must(t, err)
	must(t, rc.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), level, name) }))
	must(t, err)
	return value
}

// Options are set on the listening socket once, and connections have them.
func TestInheritedOptions(t *testing.T) {
	for _, one := range []struct {
		idle, user time.Duration
	}{{20 * time.Second, 120 * time.Second}, {10 * time.Minute, 10 * time.Minute}} {
		l, err := listen(t.Context(), "127.0.0.1:0", one.idle)
		must(t, err)
		client, err := net.Dial("tcp", l.Addr().String())
		must(t, err)
		_, err = io.WriteString(client, "x") // or it is not accepted yet
		must(t, err)
		conn, err := l.Accept()
		must(t, err)
		for _, o := range []struct {
			name                string
			level, option, want int
		}{
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
			{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
			{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
			{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{"TCP_NOTSENT_LOWAT", unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 128 << 10},
			{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(one.user.Milliseconds())},
			{"SO_PROTOCOL", unix.SOL_SOCKET, unix.SO_PROTOCOL, unix.IPPROTO_TCP}, // not MPTCP
		} {
			if got := socketOption(t, conn.(*net.TCPConn), o.level, o.option); got != o.want {
				t.Errorf("idle %v: %s is %d, want %d", one.idle, o.name, got, o.want)
			}
		}
		if got := socketOption(t, l.(*net.TCPListener), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT); got < 3 {
			t.Errorf("TCP_DEFER_ACCEPT is %d", got)
		}
		must(t, client.Close())
		must(t, conn.Close())
		must(t, l.Close())
	}
}

// A health check that connects and says nothing leaves nothing behind.
func TestSilentCheck(t *testing.T) {
	r := newRig(t, setup{})
	for range 20 {
		must(t, r.dial().Close())
	}
	c := r.dial()
	c.connect(startEcho(t).Addr())
	c.echoes()
	must(t, c.Close())
	r.idle()
	if n := len(r.log.exchanges()); n != 1 {
		t.Errorf("%d exchanges are booked, want the one", n)
	}
}
