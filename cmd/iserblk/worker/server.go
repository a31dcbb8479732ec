package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/cmd/iserblk/state"
)

// serverOptions are what a server is made of.
type serverOptions struct {
	backend    Backend
	dirs       state.Dirs
	spec       Spec
	lock       *os.File // of the target, held
	out        io.Writer
	foreground bool
}

// server serves one engine to the clients of its control socket until the last device has gone.
type server struct {
	serverOptions
	files    files
	log      *slog.Logger
	progress *listener
	op       chan struct{} // holds a token: who has taken it may attach, detach and close
	left     chan struct{} // closed when there is nothing to serve any more
	conns    sync.WaitGroup

	mu      sync.Mutex
	engine  Engine                  // nil until the first attach has logged in
	waiting int                     // operations that have the token or want it
	cancel  context.CancelCauseFunc // ends the operation that has the token
	record  Record
	parked  []Device // of a worker of this target that died, not yet taken over; who has the token changes it
	result  error    // why the server left
}

// errLeaving ends operations that come after the last device has gone. Its client starts over with a new worker.
var errLeaving = errors.New("the worker is leaving")

func newServer(o serverOptions) *server {
	o.spec.RunDir, o.spec.KeepDir = o.dirs.Run, o.dirs.Keep
	s := &server{
		serverOptions: o, files: files{o.dirs.Run, o.spec.Target},
		op: make(chan struct{}, 1), left: make(chan struct{}), record: newRecord(o.spec, o.foreground),
	}
	s.log, s.progress = newLogger(o.out, o.spec.Verbose)
	s.op <- struct{}{}
	return s
}

// run serves first and whoever connects to the control socket. A first signal asks politely, a second one forces.
// The end of ctx is as good as a second signal.
func (s *server) run(ctx context.Context, first *wire, signals <-chan os.Signal) error {
	ln, err := s.files.listen()
	if err != nil {
		first.conn.Close()
		s.files.leave()
		return err
	}
	s.clearOld()
	_ = s.save()
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.conns.Go(func() { s.accept(inner, ln) })
	s.conns.Go(func() {
		s.serve(inner, first)
		s.leaveIfUnused(inner)
	})
	s.wait(ctx, signals)
	cancel()
	ln.Close()
	s.lastWords()
	return s.result
}

// lastWords waits for the clients' connections to end, but not for an engine that hangs.
func (s *server) lastWords() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.conns.Wait()
	}()
	select {
	case <-done:
	case <-time.After(bounds.lastWords):
	}
}

const lastWordsTimeout = 5 * time.Second

// wait returns when the server has left.
func (s *server) wait(ctx context.Context, signals <-chan os.Signal) {
	stopping, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	asked, ended := 0, ctx.Done()
	for {
		select {
		case <-s.left:
			giveUp()
			return
		case sig := <-signals:
			s.log.Info("signal", "signal", sig.String())
		case <-ended:
			asked, ended = asked+1, nil
		}
		giveUp()
		asked++
		stopping, giveUp = context.WithCancel(context.WithoutCancel(ctx))
		s.conns.Go(func() { s.stop(stopping, asked > 1) })
	}
}

func (s *server) accept(ctx context.Context, ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		if err := checkPeer(conn); err != nil {
			s.log.Warn("client refused", "err", err)
			conn.Close()
			continue
		}
		s.conns.Go(func() { s.serve(ctx, newWire(conn)) })
	}
}

// checkPeer lets in root and the user that the worker runs as.
func checkPeer(conn net.Conn) error {
	cred, err := peerCred(conn.(*net.UnixConn))
	if err == nil && cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("pid %d is of user %d", cred.Pid, cred.Uid)
	}
	return err
}

func peerCred(conn *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	controlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(controlErr, err)
}

// serve answers one client until it goes. It reads ahead, so that a client that goes cancels its request.
func (s *server) serve(ctx context.Context, w *wire) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { w.conn.Close() })()
	defer w.conn.Close()
	requests := make(chan request)
	s.conns.Go(func() {
		defer close(requests)
		defer cancel()
		s.read(ctx, w, requests)
	})
	for req := range requests {
		s.handle(ctx, w, req)
	}
}

func (s *server) read(ctx context.Context, w *wire, requests chan<- request) {
	for {
		var req request
		if err := w.receive(&req); err != nil {
			return
		}
		select {
		case requests <- req:
		case <-ctx.Done():
			return
		}
	}
}

func (s *server) handle(ctx context.Context, w *wire, req request) {
	switch {
	case req.Version != protocolVersion:
		_ = w.send(failure(fmt.Errorf("control protocol of version %d, the worker speaks version %d",
			req.Version, protocolVersion)))
	case req.Op == opAttach:
		s.attach(ctx, w, req)
	case req.Op == opDetach:
		s.detach(ctx, w, req)
	case req.Op == opStatus:
		status := s.status(ctx)
		_ = w.send(reply{Done: true, Status: &status})
	default:
		_ = w.send(failure(fmt.Errorf("unknown operation %q", req.Op)))
	}
}

func failure(err error) reply { return reply{Done: true, Error: err.Error(), Code: ExitCode(err)} }

// status is what the engine says and what the server knows.
func (s *server) status(ctx context.Context) Status {
	s.mu.Lock()
	eng, record := s.engine, s.record
	s.mu.Unlock()
	st := Status{State: StateStarting, Target: record.Target, Initiator: record.Initiator}
	if eng != nil {
		st = eng.Status(ctx)
		st.State = StateLive
	}
	st.Devices = append(st.Devices, s.stillParked()...)
	st.PID, st.Started, st.Foreground = record.PID, record.Started, record.Foreground
	if !record.Foreground {
		st.Log = s.files.log()
	}
	return st
}

// save writes the record anew. That it cannot be written makes no I/O wrong, but devices that are to outlive the worker would
// be nobody's.
func (s *server) save() error {
	s.mu.Lock()
	eng, queues := s.engine, s.record.Spec.Queues
	s.mu.Unlock()
	devices := s.stillParked()
	if eng != nil {
		ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
		st := eng.Status(ctx)
		cancel()
		devices = append(devices, st.Devices...)
		queues = cmp.Or(st.Queues, queues) // an engine that has ended has none
	}
	s.mu.Lock()
	s.record.Devices, s.record.Spec.Queues = devices, queues
	record := s.record
	s.mu.Unlock()
	err := record.write(s.files)
	if err != nil {
		s.log.Warn("the state file cannot be written", "err", err)
	}
	return err
}

const statusTimeout = 5 * time.Second
