package integration

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// builder runs buildah with a storage of the test's own.
type builder struct {
	program string
	dir     string
}

func (b builder) run(t *testing.T, args ...string) string {
	t.Helper()
	all := append([]string{"--root", filepath.Join(b.dir, "root"), "--runroot", filepath.Join(b.dir, "run"), "--storage-driver", "vfs"}, args...)
	p := lab.Start(t, "buildah "+args[0], exec.Command(b.program, all...))
	if code := p.ExitCode(t, 4*time.Minute); code != 0 {
		t.Fatalf("buildah %s: exit code %d\n%s%s", strings.Join(args, " "), code, p.Stdout.Bytes(), p.Stderr.Bytes())
	}
	return strings.TrimSpace(string(p.Stdout.Bytes()))
}

// imageConfig is what the test looks at in an image's configuration.
type imageConfig struct {
	Config struct {
		User         string
		Env          []string
		Entrypoint   []string
		StopSignal   string
		ExposedPorts map[string]struct{}
		Healthcheck  struct{ Test []string }
	} `json:"config"`
}

// buildImage builds the Dockerfile with the machine's own Go in place of the Go image, and returns its configuration and a directory with its files.
func buildImage(t *testing.T) (imageConfig, string) {
	t.Helper()
	program := lab.Need(t, "buildah", "/etc/ssl/certs/ca-certificates.crt")[0]
	if os.Getuid() != 0 {
		if out, err := exec.Command(program, "unshare", "true").CombinedOutput(); err != nil {
			lab.Missing(t, "user namespaces for buildah without root", string(out))
		}
	}
	b := builder{program: program, dir: openDir(t)}
	// With the machine's own build cache too: without one Go's library is compiled again, which takes minutes where other tests run beside.
	goroot, modules, built := goEnv(t, "GOROOT"), goEnv(t, "GOMODCACHE"), goEnv(t, "GOCACHE")

	// The stand-in has of the Go image what the Dockerfile uses: certificates, a /tmp, and (mounted) the toolchain.
	files := openDir(t)
	certs := filepath.Join(files, "etc/ssl/certs")
	for _, dir := range []string{certs, filepath.Join(files, "tmp")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	pem, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, certs, "ca-certificates.crt", string(pem))
	standIn := b.run(t, "from", "scratch")
	b.run(t, "copy", standIn, files, "/")
	b.run(t, "config", "--env", "GOPATH=/go", "--env", "GOPROXY=off", "--env", "HOME=/tmp", standIn)
	b.run(t, "commit", "-q", standIn, "golang-stand-in")

	b.run(t, "build", "--isolation", "chroot", "--format", "docker", "--volume", goroot+":/usr/local/go:ro", "--volume", modules+":/go/pkg/mod:ro", "--volume", built+":/tmp/.cache/go-build",
		"--build-context", "golang:1.26-bookworm=docker-image://localhost/golang-stand-in",
		"--build-arg", "VERSION=7.8.9", "--build-arg", "COMMIT=fedcba987654", "-t", "maskrelay-image", "..")
	archive := filepath.Join(b.dir, "image.tar")
	b.run(t, "push", "-q", "maskrelay-image", "docker-archive:"+archive+":maskrelay-image:latest")
	return unpackImage(t, archive)
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// unpackImage reads a docker-archive and lays the layers over each other.
func unpackImage(t *testing.T, archive string) (imageConfig, string) {
	t.Helper()
	outer, root := openDir(t), openDir(t)
	chmod(t, root, 0o755)
	untar(t, archive, outer)
	var manifest []struct {
		Config string
		Layers []string
	}
	readJSON(t, filepath.Join(outer, "manifest.json"), &manifest)
	var config imageConfig
	readJSON(t, filepath.Join(outer, manifest[0].Config), &config)
	for _, layer := range manifest[0].Layers {
		untar(t, filepath.Join(outer, layer), root)
	}
	return config, root
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func untar(t *testing.T, archive, dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only read
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.Clean("/"+h.Name))
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeSymlink:
			if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
				err = os.Symlink(h.Linkname, path)
			}
		case tar.TypeReg:
			if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
				err = writeEntry(path, r, os.FileMode(h.Mode).Perm())
			}
		default:
			t.Fatalf("%s holds %q of type %c", archive, h.Name, h.Typeflag)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// writeEntry writes a file that may be executed at once. No process is forked while it is open: a child of another
// test would hold it open for writing until its own exec, and until then the kernel refuses to run it (ETXTBSY).
func writeEntry(path string, r io.Reader, mode os.FileMode) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// inImage returns a command that runs in the image's files, as its user and with its environment.
func inImage(t *testing.T, config imageConfig, root string, env lab.Env, args ...string) *exec.Cmd {
	t.Helper()
	uid, gid, ok := strings.Cut(config.Config.User, ":")
	if !ok {
		t.Fatalf("user %q is not uid:gid", config.Config.User)
	}
	ids := make([]int, 2)
	for i, s := range []string{uid, gid} {
		n, err := strconv.Atoi(s)
		if err != nil || n == 0 {
			t.Fatalf("user %q is not a number above 0", config.Config.User)
		}
		ids[i] = n
	}
	line := append(slices.Clone(config.Config.Entrypoint), args...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Err = nil // the path is looked for in the image, not here
	cmd.Dir = "/"
	cmd.Env = slices.Clone(config.Config.Env)
	for name, value := range env {
		cmd.Env = append(cmd.Env, "MASKRELAY_"+name+"="+value)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(ids[0]), Gid: uint32(ids[1])}
	} else {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: ids[0], HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: ids[1], HostID: os.Getgid(), Size: 1}}
	}
	return cmd
}

// TestImage builds the image from the Dockerfile, looks into it and runs it.
func TestImage(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("images are built on Linux")
	}
	config, root := buildImage(t)
	if got := filesBelow(t, root); !slices.Equal(got, []string{"etc/ssl/certs/ca-certificates.crt", "maskrelay"}) {
		t.Errorf("the image holds %q", got)
	}
	c := config.Config
	if c.StopSignal != "SIGTERM" || !slices.Equal(c.Healthcheck.Test, []string{"CMD", "/maskrelay", "health"}) || !slices.Equal(c.Entrypoint, []string{"/maskrelay"}) {
		t.Errorf("configuration %+v", c)
	}
	if _, ok := c.ExposedPorts["8080/tcp"]; !ok {
		t.Errorf("exposed ports %v", c.ExposedPorts)
	}

	version := lab.Start(t, "image version", inImage(t, config, root, nil, "version"))
	if code := version.ExitCode(t, 30*time.Second); code != 0 || !version.Stdout.Contains("7.8.9") || !version.Stdout.Contains("fedcba987654") {
		t.Errorf("version: exit code %d: %s", code, version.Stdout.Bytes())
	}

	vendor := startSquid(t)
	addr := lab.FreeAddr(t)
	env := lab.Env{"LISTEN": addr, "ADMIN_LISTEN": lab.FreeAddr(t), "UPSTREAM": vendor.url, "ACCOUNTS": customerName + ":image-password", "ALLOW_PRIVATE": "true", "ALLOW_PORTS": "*", "DRAIN_GRACE": "0s"}
	relay := lab.Start(t, "image", inImage(t, config, root, env))
	lab.Wait(t, 20*time.Second, "the image to be healthy", func() bool {
		return lab.Start(t, "image health", inImage(t, config, root, env, "health")).ExitCode(t, 10*time.Second) == 0
	})
	status, err := os.ReadFile("/proc/" + strconv.Itoa(relay.PID()) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(status), "\nUid:\t0\t") {
		t.Error("the image runs as root")
	}
	conn := mustDial(t, tapCustomer(t, addr).Addr())
	if got := conn.mustConnect(t, startEcho(t), customerName, "image-password"); got.status != 200 {
		t.Fatalf("CONNECT through the image: %+v", got)
	}
	if err := conn.ping("through the image"); err != nil {
		t.Error(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	relay.Signal(t, syscall.SIGTERM)
	if code := relay.ExitCode(t, 20*time.Second); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	checkLog(t, relay)
}

// filesBelow returns all that is no directory, sorted.
func filesBelow(t *testing.T, root string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		files = append(files, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return files
}
