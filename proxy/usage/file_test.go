package usage_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"maskrelay/proxy/usage"
)

func open(t testing.TB, path string) usage.Ledger {
	t.Helper()
	l, err := usage.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closeIt(t testing.TB, l usage.Ledger) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// child starts a process that books in the file until it is killed.
func child(t *testing.T, path string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "MASKRELAY_USAGE_TEST_FILE="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

func TestFileAfterAKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage.db")
	want := int64(0) // of all rounds
	for round := range 5 {
		cmd, lines := child(t, path)
		said := int64(0)
		for said < int64(20+7*round) && lines.Scan() {
			n, err := strconv.ParseInt(lines.Text(), 10, 64)
			if err != nil {
				t.Fatalf("the child said %q", lines.Text())
			}
			said = n
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it said before the end
			said++
		}
		_ = cmd.Wait() // killed, as it was meant to be
		l := open(t, path)
		totals, err := l.Totals(t.Context(), []string{"alice", "bob"})
		if err != nil {
			t.Fatal(err)
		}
		closeIt(t, l)
		// The child of each round is the same node and counts from 1 again, so only what it
		// booked beyond the rounds before is new.
		want = max(want, said)
		if alice, bob := totals[0].All.Sent, totals[1].All.Received; bob != 2*alice || alice < want || alice > want+1 {
			t.Fatalf("round %d: alice %d, bob %d, the child said %d", round, alice, bob, want)
		} else {
			want = alice
		}
	}
}

func TestFileInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage.db")
	cmd, lines := child(t, path)
	defer func() {
		_ = cmd.Process.Kill()
		for lines.Scan() {
			continue
		}
		_ = cmd.Wait()
	}()
	if !lines.Scan() {
		t.Fatal("the child did not book")
	}
	begin := time.Now()
	_, err := usage.OpenFile(path)
	if err == nil || !strings.Contains(err.Error(), path+" is in use by another process") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v to say so", took)
	}
}

func TestFileKeepsAcrossOpenings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage.db")
	for i := range int64(3) {
		l := open(t, path)
		batch := usage.Batch{Node: fmt.Sprint("start ", i), At: time.Now(), Entries: []usage.Entry{
			{Account: "alice", Seq: 1, Sums: usage.Sums{Sent: 5}, Quota: usage.Quota{Bytes: 10}},
		}}
		totals, err := l.Book(t.Context(), batch)
		if err != nil || totals[0].All.Sent != 5*(i+1) || (len(totals[0].Crossed) == 2) != (i == 1) {
			t.Errorf("opening %d: %+v, %v", i, totals, err)
		}
		closeIt(t, l)
		if _, err := l.Book(t.Context(), batch); err == nil {
			t.Error("booked in a closed file")
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// goodFile returns the content of a file with thirty hours of a hundred accounts.
func goodFile(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "good.db")
	l := open(t, path)
	for seq := range int64(30) {
		batch := usage.Batch{Node: "a", At: time.Now().Add(time.Duration(seq) * time.Hour)}
		for i := range 100 {
			batch.Entries = append(batch.Entries, usage.Entry{Account: fmt.Sprint("account", i), Seq: seq + 1, Sums: usage.Sums{Sent: 1}})
		}
		if _, err := l.Book(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	closeIt(t, l)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// Whatever is wrong with the file, the error names it and nothing panics.
func TestFileDamaged(t *testing.T) {
	content := goodFile(t)
	for name, spoil := range map[string]func([]byte) []byte{
		"text":           func([]byte) []byte { return []byte("accounts:\n  - name: alice\n") },
		"long text":      func([]byte) []byte { return []byte(strings.Repeat("accounts\n", 10000)) },
		"cut short":      func(b []byte) []byte { return b[:len(b)/2] },
		"cut to a page":  func(b []byte) []byte { return b[:4096] },
		"cut to two":     func(b []byte) []byte { return b[:2*4096] },
		"pages of zeros": func(b []byte) []byte { clear(b[2*4096:]); return b },
		"pages of ones": func(b []byte) []byte {
			for i := 2 * 4096; i < len(b); i++ {
				b[i] = 0xff
			}
			return b
		},
		"records": func(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), "account1", "account\x00")) },
		"values":  func(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), "\x01a", "\xffz")) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "usage.db")
			if err := os.WriteFile(path, spoil(append([]byte(nil), content...)), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := usage.OpenFile(path)
			if err == nil {
				closeIt(t, l)
				if name != "records" { // names that are wrong cannot be told from right ones
					t.Fatal("opened")
				}
				return
			}
			if !strings.Contains(err.Error(), path) {
				t.Errorf("%v does not name the file", err)
			}
			t.Log(err)
		})
	}
	if _, err := usage.OpenFile(filepath.Join(t.TempDir(), "none", "usage.db")); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a folder that is not there: %v", err)
	}
}

// A file that was cut off is told, or what is gone was not in use.
func TestFileCutOff(t *testing.T) {
	content := goodFile(t)
	for size := 4096; size < len(content); size += 4096 {
		path := filepath.Join(t.TempDir(), "cut.db")
		if err := os.WriteFile(path, content[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := usage.OpenFile(path)
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Errorf("cut to %d: %v does not name the file", size, err)
			}
			continue
		}
		// Nothing that is in use was cut off.
		if rows, err := l.Report(t.Context(), usage.Query{}); err != nil || len(rows) != 100 || rows[0].Sent != 30 {
			t.Errorf("cut to %d: %d rows, %v", size, len(rows), err)
		}
		closeIt(t, l)
	}
}
