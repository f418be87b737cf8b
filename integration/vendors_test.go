package integration

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// basic returns the credentials of Basic authentication, without the scheme.
func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// vendor is a real proxy program with its own Basic authentication, behind a tap that searches what it receives for the customer.
type vendor struct {
	process *lab.Process
	tap     *lab.Tap
	addr    string // of the program itself
	// target is the host by which this vendor can reach the target.
	target string
	url    string // for UPSTREAM, credentials in it
	shared string // pattern of files that the program leaves if it is killed, "" = none
}

// vendorKinds are the programs that play the vendor.
var vendorKinds = map[string]func(*testing.T) *vendor{"squid": startSquid, "tinyproxy": startTinyproxy}

func startSquid(t *testing.T) *vendor {
	t.Helper()
	programs := lab.Need(t, "squid", "htpasswd", "/usr/lib/squid/basic_ncsa_auth")
	dir := openDir(t)
	port := lab.FreePort(t)
	passwords := filepath.Join(dir, "passwords")
	// bcrypt is what htpasswd offers that basic_ncsa_auth knows for passwords beyond eight characters besides MD5.
	for _, add := range [][]string{{"-cbm", passwords, vendorUser}, {"-bm", passwords, vendorUserUS}} {
		if out, err := exec.Command(programs[1], append(add, vendorPassword)...).CombinedOutput(); err != nil {
			t.Fatalf("htpasswd: %v: %s", err, out)
		}
	}
	chmod(t, passwords, 0o644)
	hosts := writeFile(t, dir, "hosts", "127.0.0.1 "+targetName+"\n")
	// Squid 5.7 drops a customer whose upload fills its request buffer, so the buffer holds the largest upload of the tests.
	conf := writeFile(t, dir, "squid.conf", fmt.Sprintf(`http_port 127.0.0.1:%d
pid_filename %s/squid.pid
cache_log %s/cache.log
access_log stdio:%s/access.log
coredump_dir %s
hosts_file %s
cache deny all
visible_hostname %s
auth_param basic program %s %s
auth_param basic realm %s
auth_param basic credentialsttl 1 hour
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
shutdown_lifetime 0 seconds
pinger_enable off
client_request_buffer_max_size 128 MB
`, port, dir, dir, dir, dir, hosts, vendorName, programs[2], passwords, vendorRealm))
	// The service name keeps shared memory apart from any other squid's; squid removes its own when it is asked to end.
	service := "lab" + strconv.Itoa(port)
	v := &vendor{target: targetName, addr: "127.0.0.1:" + strconv.Itoa(port), shared: "/dev/shm/" + service + "-*.shm"}
	cmd := exec.Command(programs[0], "-N", "-n", service, "-f", conf)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	v.start(t, "squid", cmd)
	return v
}

func startTinyproxy(t *testing.T) *vendor {
	t.Helper()
	program := lab.Need(t, "tinyproxy")[0]
	dir := openDir(t)
	port := lab.FreePort(t)
	conf := writeFile(t, dir, "tinyproxy.conf", fmt.Sprintf(`Port %d
Listen 127.0.0.1
Timeout 600
LogLevel Info
PidFile "%s/tinyproxy.pid"
MaxClients 400
BasicAuth %s %s
ViaProxyName "%s"
AddHeader "X-SuperVendor-Pool" "residential"
`, port, dir, vendorUser, tinyproxyPassword, vendorName))
	v := &vendor{target: targetAddress, addr: "127.0.0.1:" + strconv.Itoa(port)}
	v.startAs(t, "tinyproxy", exec.Command(program, "-d", "-c", conf), tinyproxyPassword)
	return v
}

// tinyproxyPassword is vendorPassword within the characters that tinyproxy's configuration can hold.
const tinyproxyPassword = "vendor-pass-word-1"

func (v *vendor) start(t *testing.T, name string, cmd *exec.Cmd) {
	t.Helper()
	v.startAs(t, name, cmd, vendorPassword)
}

func (v *vendor) startAs(t *testing.T, name string, cmd *exec.Cmd, password string) {
	t.Helper()
	v.process = lab.Start(t, name, cmd)
	lab.Wait(t, 20*time.Second, name+" to listen", func() bool {
		if !v.process.Running() {
			t.Fatalf("%s ended:\n%s%s", name, v.process.Stdout.Bytes(), v.process.Stderr.Bytes())
		}
		return lab.Listening(v.addr)
	})
	v.tap = lab.StartTap(t, lab.TapConfig{Name: name, Listen: vendorAddress + ":" + strconv.Itoa(lab.FreePort(t)), To: v.addr, Listener: customerMarks()})
	v.url = (&url.URL{Scheme: "http", User: url.UserPassword(vendorUser, password), Host: v.tap.Addr()}).String()
}

// kill ends the program by SIGKILL, and then its address refuses connections as that of a dead program does.
func (v *vendor) kill(t *testing.T) {
	t.Helper()
	v.process.Signal(t, syscall.SIGKILL)
	if code := v.process.ExitCode(t, 10*time.Second); code != -1 {
		t.Fatalf("%s ended with exit code %d before it was killed", v.process.Name, code)
	}
	if lab.Listening(v.addr) {
		t.Fatalf("%s still listens on %s", v.process.Name, v.addr)
	}
	v.tap.Close()
	left, err := filepath.Glob(v.shared)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range left {
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
	}
}

// heads returns the beginning of everything the vendor received so far.
func (v *vendor) heads() string {
	var all strings.Builder
	for _, r := range v.tap.Records() {
		all.Write(r.ToTarget())
	}
	return all.String()
}

// openDir returns a directory of the test that a daemon may write to after it has changed its user. Its *.log files are shown if the test fails.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "maskrelay-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			showLogs(t, dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	chmod(t, dir, 0o777)
	return dir
}

// showLogs attaches the ends of the daemons' log files to a failed test.
func showLogs(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		t.Error(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		t.Logf("%s: %v\n%s", filepath.Base(file), err, text[max(0, len(text)-4<<10):])
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
