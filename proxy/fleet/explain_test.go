package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"maskrelay/proxy/fleet"
)

// answer is an error as Redis writes it.
type answer string

func (a answer) Error() string { return string(a) }
func (answer) RedisError()     {}

var _ redis.Error = answer("")

func TestExplain(t *testing.T) {
	cases := []struct {
		err  error
		want string
	}{
		{answer("WRONGPASS invalid username-password pair or user is disabled."), "refuses the user or the password"},
		{answer("ERR invalid password"), "refuses the password"},
		{answer("ERR AUTH <password> called without any password configured for the default user. secret"), "refuses the password"},
		{answer("ERR Client sent AUTH, but no password is set"), "Redis has no password"},
		{answer("NOAUTH Authentication required."), "wants a password"},
		{answer("NOPERM User Uvwxyz has no permissions to run the 'evalsha' command"), "may not run the command evalsha"},
		{answer("NOPERM this user has no permissions to run the 'config|get' command"), "may not run the command config|get"},
		{answer("NOPERM this user has no permissions to run the 'hunter2 command"), "lacks a permission"},
		{answer("NOPERM No permissions to access a key secret"), "lacks a permission"},
		{answer("LOADING Redis is loading the dataset in memory"), "still loading"},
		{answer("READONLY You can't write against a read only replica."), "is a replica"},
		{answer("ERR Error running script (call to f_1): @user_script:5: @user_script: 5: -READONLY You can't write against a read only replica."), "is a replica"},
		{answer("ERR Error running script (call to f_1): @user_script:5: secret"), "Redis answers with an error"},
		{answer("MISCONF Redis is configured to save RDB snapshots"), "cannot save"},
		{answer("OOM command not allowed when used memory > 'maxmemory'."), "memory is full"},
		{answer("CLUSTERDOWN Hash slot not served"), "Cluster is down"},
		{answer("MOVED 1 secret:6379"), "?addr=host:port"},
		{answer("ERR max number of clients reached"), "as many connections"},
		{answer("ERR unknown command 'EVALSHA', with args beginning with: secret"), "Redis answers with an error"},
		{answer("HUNTER secret"), "the error HUNTER"},
		{answer("secret"), "Redis answers with an error"},
		{answer(""), "Redis answers with an error"},
		{&net.DNSError{Err: "no such host", Name: "secret"}, "no address"},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, "nothing listens"},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}, "no route"},
		{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, "ended the connection"},
		{fmt.Errorf("secret: %w", context.DeadlineExceeded), "in time"},
		{os.ErrDeadlineExceeded, "in time"},
		{context.Canceled, "given up"},
		{redis.ErrPoolTimeout, "no free connection"},
		{errors.New("secret"), "failed"},
	}
	for _, tc := range cases {
		err := fleet.Explain(fmt.Errorf("hunter2: %w", tc.err))
		if !strings.Contains(err.Error(), tc.want) || !errors.Is(err, tc.err) {
			t.Errorf("%q is explained as %q, want %s", tc.err, err, tc.want)
		}
		tellsNothing(t, err)
		if again := fleet.Explain(err); !errors.Is(again, err) || again.Error() != err.Error() {
			t.Errorf("explained twice: %v", again)
		}
	}
	if err := fleet.Explain(nil); err != nil {
		t.Error(err)
	}
}
