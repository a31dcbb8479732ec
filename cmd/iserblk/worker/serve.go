package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/cmd/iserblk/state"
)

// The files that a worker is started with, besides standard error, its log.
const (
	fdHello = 3 // socketpair: hello, then the control protocol
	fdLock  = 4 // the target's lock, held
)

// stopSignals make a server leave: politely at first, by force when they come again.
var stopSignals = []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP}

// Main is the worker process that Attach starts. It returns the process's exit code.
func Main(b Backend) int {
	notes := hardenProcess()
	first, lock, err := inherited()
	if err != nil {
		fmt.Fprintln(os.Stderr, "iserblk: worker: only attach can start it:", err)
		return ExitInput
	}
	var h hello
	w := newWire(first)
	if err := w.receive(&h); err != nil {
		return ExitGeneric // who started it has gone
	}
	if err := h.Spec.check(); err != nil {
		_ = w.send(failure(err))
		return ExitInput
	}
	o := serverOptions{
		backend: b, dirs: state.Dirs{Run: h.Run, Keep: h.Keep}, spec: h.Spec, lock: lock,
		out: newLogFile(files{h.Run, h.Spec.Target}),
	}
	return ExitCode(serveUntilSignal(context.Background(), newServer(o), w, append(notes, h.Notes...)))
}

// inherited takes over the files that the process was started with.
func inherited() (net.Conn, *os.File, error) {
	hello := os.NewFile(fdHello, "hello")
	defer hello.Close()
	conn, err := net.FileConn(hello)
	if err != nil {
		return nil, nil, err
	}
	unix.CloseOnExec(fdLock)
	lock := os.NewFile(fdLock, "lock")
	if _, err := lock.Stat(); err != nil {
		return nil, nil, err
	}
	return conn, lock, nil
}

func serveUntilSignal(ctx context.Context, s *server, first *wire, notes []string) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, stopSignals...)
	defer signal.Stop(signals)
	s.log.Info("worker started", "spec", s.spec, "pid", os.Getpid())
	for _, n := range notes {
		s.log.Warn("less safe than it could be: " + n)
	}
	err := s.run(ctx, first, signals)
	if err != nil {
		s.log.Error("worker ends", "err", err)
	}
	return err
}

// ForegroundOptions are for Foreground.
type ForegroundOptions struct {
	Backend  Backend
	Dirs     state.Dirs
	Spec     Spec
	LUNs     []uint64 // nil means all
	Attach   AttachOptions
	Log      io.Writer
	Timeout  time.Duration  // for the attach; 0 is none
	Notes    []string       // what Isolate could not do, for the log
	Progress func(string)   // may be nil
	Ready    func([]Device) // is told the devices once they can be used
}

// Foreground attaches and serves in this process. It returns when the last device has been detached, or after a
// signal: the first one detaches unless a device is in use, the next one detaches by force, as does the end of ctx.
func Foreground(ctx context.Context, o ForegroundOptions) error {
	f := files{o.Dirs.Run, o.Spec.Target}
	lock, err := f.acquire()
	if errors.Is(err, errLocked) {
		return fmt.Errorf("%w: %s is served by another process; attach without --foreground to join it", ErrAttached,
			o.Spec.Target)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	notes := append(o.Notes, hardenProcess()...)
	s := newServer(serverOptions{
		backend: o.Backend, dirs: o.Dirs, spec: o.Spec, lock: lock, out: o.Log, foreground: true,
	})
	ours, theirs := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- serveUntilSignal(ctx, s, newWire(theirs), notes) }()
	c := &Client{w: newWire(ours)}
	attaching, cancel := o.attachContext(ctx)
	devices, err := c.Attach(attaching, o.LUNs, o.Attach, o.Progress)
	cancel()
	if err == nil {
		o.Ready(devices)
		notifyReady()
	}
	c.Close()
	if errors.Is(err, errGone) {
		err = errEndedBySignal // which came before the attach
	}
	return errors.Join(err, <-ended)
}

// attachContext bounds the attach. The end of ctx reaches the server, which ends the attach by itself.
func (o ForegroundOptions) attachContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx = context.WithoutCancel(ctx)
	if o.Timeout == 0 {
		return context.WithCancel(ctx)
	}
	cause := fmt.Errorf("not attached within %v: %w", o.Timeout, context.DeadlineExceeded)
	return context.WithTimeoutCause(ctx, o.Timeout, cause)
}

// notifyReady tells systemd that the service is up (sd_notify(3)), if it runs us.
func notifyReady() {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("READY=1\nSTATUS=Devices attached"))
}
