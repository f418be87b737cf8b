package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"maskrelay/proxy/account"
	"maskrelay/proxy/account/redisaccounts"
	"maskrelay/proxy/fleet"
)

// maxAccountsFile bounds what is imported, in bytes, as serve does.
const maxAccountsFile = 128 << 20

func newAccounts(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "accounts",
		Short: "Move accounts between the file and Redis",
		Long: `Move accounts between an accounts file and the Redis at MASKRELAY_REDIS_URL, where relays with
MASKRELAY_ACCOUNTS_REDIS=true have them. No relay needs to run; those that do take the change up within a second.`,
		Example: "  maskrelay accounts import accounts.yaml --dry-run\n  maskrelay accounts export -o accounts.yaml",
		Args:    cobra.ArbitraryArgs, // so that an unknown command is answered with suggestions below
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return errors.New("accounts: import or export?")
		},
	}
	cmd.SuggestionsMinimumDistance = 2
	cmd.AddCommand(newAccountsImport(p), newAccountsExport(p))
	return cmd
}

func newAccountsImport(p process) *cobra.Command {
	var replace, dryRun bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Write a file's accounts to Redis",
		Long: `Write the accounts of an accounts file (YAML) to Redis: those that are not there are added, others changed to what the file
says. Accounts that only Redis has stay, unless --replace removes them. Open connections feel it within seconds.

The whole file is looked at first; with anything wrong in it nothing is written. Redis keeps hashes of passwords only. Those
that the file has in plain text are hashed, or compared with the hash that is there, which takes some 50 ms of one processor
for each; all processors are used.

Exit code 0, 1 when Redis failed (run it again then), 2 for a bad file or bad variables.`,
		Example: "  maskrelay accounts import accounts.yaml --dry-run\n  maskrelay accounts import accounts.yaml --replace",
		Args:    oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			transfer := redisaccounts.Import
			done := "done"
			if dryRun {
				transfer, done = redisaccounts.Compare, "nothing was written"
			}
			accounts, err := readAccounts(args[0])
			if err != nil {
				return badConfig(err)
			}
			return withAccounts(cmd.Context(), p, func(ctx context.Context, s *redisaccounts.Store) error {
				added, changed, unchanged, removed, err := transfer(ctx, s, accounts, replace)
				if err != nil {
					return fmt.Errorf("%w (%d added, %d changed, %d removed until then)", err, added, changed, removed)
				}
				_, err = fmt.Fprintf(p.stdout, "%d added, %d changed, %d unchanged, %d removed: %s\n", added, changed, unchanged, removed, done)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "remove accounts that the file does not have")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "tell what would change, write nothing")
	cmd.ValidArgsFunction = cobra.FixedCompletions([]string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt)
	return cmd
}

// readAccounts reads an accounts file. Problems begin with file, line and column; all are told.
func readAccounts(path string) ([]*account.Account, error) {
	data, err := readFile(path, maxAccountsFile)
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, fmt.Errorf("%s: %w", path, pe.Err)
	}
	if err != nil {
		return nil, err
	}
	return account.ParseFile(path, data)
}

func newAccountsExport(p process) *cobra.Command {
	var out string
	var force bool
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write Redis' accounts to a file",
		Long: `Write all accounts in Redis as an accounts file (YAML), in the order of their names, to standard output or with -o to a file
that only its owner can read. Passwords are in it as hashes, which are as secret as the accounts file itself. The file is
there whole or not at all.

Exit code 0, 1 when Redis or the file failed, 2 for bad flags or variables.`,
		Example: "  maskrelay accounts export -o accounts.yaml\n  maskrelay accounts export | grep -c name:",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if force && out == "" {
				return errors.New("--force: has no effect without --output")
			}
			if cmd.Flags().Changed("output") && out == "" {
				return errors.New("--output: empty")
			}
			return withAccounts(cmd.Context(), p, func(ctx context.Context, s *redisaccounts.Store) error {
				export := func(w io.Writer) error { return redisaccounts.Export(ctx, s, w) }
				if out == "" {
					return export(p.stdout)
				}
				return writeNew(out, force, export)
			})
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write instead of standard output")
	cmd.Flags().BoolVar(&force, "force", false, "overwrite the file")
	return cmd
}

// withAccounts calls f with the accounts in Redis, until a signal. The process ends after it.
func withAccounts(ctx context.Context, p process, f func(ctx context.Context, s *redisaccounts.Store) error) error {
	cfg, err := loadSome(p.environ, "REDIS_URL", "REDIS_CA_FILE", "NODE_NAME")
	if err == nil && cfg.Fleet == nil {
		err = &variableError{envPrefix + "REDIS_URL", errors.New("missing; it is where the accounts are")}
	}
	if err != nil {
		return badConfig(err)
	}
	client, err := fleet.Open(*cfg.Fleet)
	if err != nil {
		return failed(fmt.Errorf("accounts: %w", err))
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err = f(ctx, redisaccounts.New(client))
	if err = errors.Join(err, client.Close()); err != nil {
		return failed(fmt.Errorf("accounts: %w", err))
	}
	return nil
}

// oneFile is what import takes.
func oneFile(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("accounts import: takes one accounts file, not %d", len(args))
	}
	return nil
}

// writeNew makes a file of what write writes, for the owner's eyes, whole or not at all. One that is there already is replaced
// with force, and else an error and left as it is.
func writeNew(path string, force bool, write func(io.Writer) error) (err error) {
	if _, err := os.Lstat(path); err == nil && !force {
		return fmt.Errorf("%s is there already; --force overwrites it", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".maskrelay-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeIfThere(f.Name())) }()
	buffered := bufio.NewWriter(f)
	err = write(buffered)
	if err == nil {
		err = buffered.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if !force { // unlike a rename a link does not replace what came there meanwhile
		switch err = os.Link(f.Name(), path); {
		case err == nil:
			return nil
		case errors.Is(err, fs.ErrExist):
			return fmt.Errorf("%s is there already; --force overwrites it", path)
		}
		// A file system without hard links.
	}
	return os.Rename(f.Name(), path)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
