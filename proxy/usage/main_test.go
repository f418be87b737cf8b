package usage

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childEnv names the file that a child process of the tests is to book in until it is killed.
const childEnv = "MASKRELAY_USAGE_TEST_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		bookForEver(path)
		return
	}
	goleak.VerifyTestMain(m)
}

// bookForEver books one byte at a time and says each that is booked.
func bookForEver(path string) {
	l, err := OpenFile(path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for seq := int64(1); ; seq++ {
		if _, err := l.Book(context.Background(), Batch{Node: "child", At: time.Now(), Entries: []Entry{
			{Account: "alice", Seq: seq, Sums: Sums{Sent: 1}},
			{Account: "bob", Seq: seq, Sums: Sums{Received: 2}},
		}}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(seq)
	}
}
