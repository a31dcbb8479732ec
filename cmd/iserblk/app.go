package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"iserblk/cmd/iserblk/state"
	"iserblk/cmd/iserblk/worker"
)

// program is one run of the command line, with everything that a test wants to replace.
type program struct {
	stdout, stderr io.Writer
	backend        worker.Backend
	root           string // the file system's, "/" but in tests
	lookup         func(ctx context.Context, network, host string) ([]netip.Addr, error)
	terminal       bool                                        // stderr is one
	isolate        func(d state.Dirs, keep ...string) []string // worker.Isolate
}

// exitInterrupted is the exit code after SIGINT, as shells have it.
const exitInterrupted = 128 + int(unix.SIGINT)

var errInterrupted = errors.New("interrupted")

// run does what args say and returns the process's exit code.
func (p *program) run(args []string) int {
	if len(args) > 1 && args[1] == completeVerb {
		p.complete(args[2:])
		return worker.ExitOK
	}
	app := p.app()
	ordered, err := reorder(app, args)
	if err == nil {
		err = app.RunContext(context.Background(), ordered)
	}
	var code exitStatus
	switch {
	case err == nil:
		return worker.ExitOK
	case errors.As(err, &code):
		return int(code) // what there was to say has been said
	}
	fmt.Fprintln(p.stderr, "iserblk: "+oneLine(err))
	if errors.Is(err, errInterrupted) {
		return exitInterrupted
	}
	return worker.ExitCode(err)
}

// exitStatus is an error without a message.
type exitStatus int

// Error is never shown.
func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

func (p *program) app() *cli.App {
	app := &cli.App{
		Name:        "iserblk",
		Usage:       "attach the LUNs of iSER targets as local block devices",
		Description: description,
		Writer:      p.stdout, ErrWriter: p.stderr,
		HideVersion: true, HideHelpCommand: true,
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   usageError,
		Flags:          globalFlags(),
		Commands: []*cli.Command{
			p.discoverCommand(), p.lunsCommand(), p.attachCommand(), p.detachCommand(), p.recoverCommand(), p.listCommand(),
			p.statusCommand(), p.pathsCommand(), p.doctorCommand(), p.versionCommand(), p.completionCommand(),
			p.manCommand(), p.demoCommand(), p.workerCommand(),
		},
	}
	for _, c := range app.Commands {
		c.OnUsageError = usageError
		c.HideHelpCommand = true
	}
	return app
}

const description = `A portal is HOST[:PORT], an IPv6 address in brackets, port 3260 if none is given.
A target is iser://[USER@]PORTAL[,PORTAL...]/NAME[/LUN]; without LUN it means all of them.`

func usageError(_ *cli.Context, err error, _ bool) error { return badInput("%w", err) }

// badInput makes an error that says that the command line is at fault.
func badInput(format string, args ...any) error { return inputError{fmt.Errorf(format, args...)} }

// inputError matches worker.ErrInput without saying so.
type inputError struct{ error }

// Is is for errors.Is.
func (e inputError) Is(target error) bool { return target == worker.ErrInput }

// Unwrap is for errors.Is and errors.As.
func (e inputError) Unwrap() error { return e.error }

const (
	flagRunDir   = "run-dir"
	flagStateDir = "state-dir"
	flagVerbose  = "verbose"
	flagOutput   = "output"
)

func globalFlags() []cli.Flag {
	own := state.Default(os.Geteuid(), os.Getenv)
	return []cli.Flag{
		&cli.StringFlag{
			Name: flagRunDir, Value: own.Run, DefaultText: defaultDir(own.Run, state.DefaultRun), EnvVars: []string{"ISERBLK_RUN_DIR"},
			Usage: "keep sockets, locks and logs in `DIR`",
		},
		&cli.StringFlag{
			Name: flagStateDir, Value: own.Keep, DefaultText: defaultDir(own.Keep, state.DefaultKeep), EnvVars: []string{"ISERBLK_STATE_DIR"},
			Usage: "keep the host's identity in `DIR`; it must survive reboots",
		},
		&cli.BoolFlag{Name: flagVerbose, Aliases: []string{"v"}, Usage: "say more on standard error"},
	}
}

// defaultDir is what the help says of a directory: the system's, whoever asks, so that it does not depend on him.
func defaultDir(own, system string) string {
	if own == system {
		return system
	}
	return own + " (of root: " + system + ")"
}

func outputFlag() cli.Flag {
	return &cli.StringFlag{
		Name: flagOutput, Aliases: []string{"o"}, Value: "table", Usage: "print as `FORMAT`: table or json",
	}
}

func dirs(c *cli.Context) state.Dirs {
	return state.Dirs{Run: c.String(flagRunDir), Keep: c.String(flagStateDir)}
}

// interruptible is a context that ends with SIGINT or SIGTERM.
func interruptible(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-signals:
			cancel(errInterrupted)
		case <-stop:
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(stop)
		<-done
		cancel(nil)
	}
}

// only takes the arguments of a command that wants between least and most of them.
func only(c *cli.Context, least, most int) ([]string, error) {
	args := c.Args().Slice()
	if len(args) < least || (most >= 0 && len(args) > most) {
		return nil, badInput("usage: iserblk %s [options] %s", c.Command.Name, c.Command.ArgsUsage)
	}
	return args, nil
}
