package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ListenConfig says where clients come in.
type ListenConfig struct {
	// Network is "unix" or "tcp".
	Network string
	// Address is a path, or host:port.
	Address string
	// TLS, when set, is required of every client. TCP takes it, or else Plain.
	TLS *tls.Config
	// Plain serves TCP in the clear, to everybody who can reach the address.
	Plain bool
	// HandshakeTimeout bounds a client's handshake; 0 means DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration
}

// DefaultHandshakeTimeout is how long a client may take to say what it wants.
const DefaultHandshakeTimeout = 10 * time.Second

// mostHandshakes is how many clients may be negotiating at once; the next wait to be accepted.
const mostHandshakes = 64

// listener takes clients in until it is stopped.
type listener struct {
	exp   *Export
	cfg   ListenConfig
	net   net.Listener
	room  chan struct{} // a place for each handshake
	ctx   context.Context
	abort context.CancelFunc
	wait  sync.WaitGroup
}

// Listen has the export serve who connects to an address, until Close. A unix socket is for its owner alone (mode 0600), replaces one
// that nobody listens on, and is removed in the end; one that somebody listens on is ErrInUse.
func (e *Export) Listen(ctx context.Context, cfg ListenConfig) (net.Addr, error) {
	op := "listen on " + cfg.Address
	if cfg.Network == "tcp" && cfg.TLS == nil && !cfg.Plain {
		return nil, &Error{Op: op, Err: errors.New("TCP is served with TLS only"), Hint: "give a certificate and its key"}
	}
	if cfg.HandshakeTimeout <= 0 {
		cfg.HandshakeTimeout = DefaultHandshakeTimeout
	}
	inner, err := bind(ctx, cfg)
	if err != nil {
		return nil, &Error{Op: op, Err: err}
	}
	l := &listener{exp: e, cfg: cfg, net: inner, room: make(chan struct{}, mostHandshakes)}
	l.ctx, l.abort = context.WithCancel(context.WithoutCancel(ctx))
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing.Load() {
		l.abort()
		inner.Close()
		return nil, &Error{Op: op, Err: ErrClosed}
	}
	e.listeners = append(e.listeners, l)
	l.wait.Add(1)
	go l.accept()
	return inner.Addr(), nil
}

// bind makes the listening socket.
func bind(ctx context.Context, cfg ListenConfig) (net.Listener, error) {
	if cfg.Network != "unix" {
		return (&net.ListenConfig{}).Listen(ctx, cfg.Network, cfg.Address)
	}
	if err := clearStale(cfg.Address); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: ownerOnly}
	return lc.Listen(ctx, cfg.Network, cfg.Address)
}

// ownerOnly sets the mode that the socket's file will have, before there is one.
func ownerOnly(_, _ string, c syscall.RawConn) error {
	var inner error
	if err := c.Control(func(fd uintptr) { inner = unix.Fchmod(int(fd), 0o600) }); err != nil {
		return err
	}
	return inner
}

// clearStale removes a socket that a server left which is no more.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return ErrInUse
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%w: %w", ErrInUse, err) // a full backlog, or none of our business
	}
	return os.Remove(path)
}

// pause is what a listener waits after an error, such as too many open files.
const pause = 100 * time.Millisecond

func (l *listener) accept() {
	defer l.wait.Done()
	for {
		select {
		case l.room <- struct{}{}:
		case <-l.ctx.Done():
			return
		}
		c, err := l.net.Accept()
		switch {
		case err == nil:
			l.wait.Add(1)
			go l.greet(c)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			<-l.room
			l.exp.log.Warn("accept a client", "err", err)
			select {
			case <-time.After(pause):
			case <-l.ctx.Done():
			}
		}
	}
}

// greet negotiates with a client and serves it if it wants that.
func (l *listener) greet(c net.Conn) {
	defer l.wait.Done()
	client := c.RemoteAddr().String()
	h := &handshake{exp: l.exp, conn: c, tls: l.cfg.TLS}
	err := l.negotiate(c, h)
	<-l.room
	if err == nil {
		err = l.serve(c, h, client)
	} else if h.hub != nil {
		h.hub.tickets.Add(-1)
	}
	if err == nil {
		return
	}
	c.Close()
	if errors.Is(err, errGoodbye) {
		l.exp.log.Debug("client did not stay", "client", client)
		return
	}
	l.exp.log.Warn("client refused", "client", client, "err", err)
}

// negotiate bounds the handshake in time, and ends it when the listener stops.
func (l *listener) negotiate(c net.Conn, h *handshake) error {
	if err := c.SetDeadline(time.Now().Add(l.cfg.HandshakeTimeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(l.ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := h.negotiate(l.ctx); err != nil {
		return err
	}
	if !stop() {
		return ErrClosed
	}
	return c.SetDeadline(time.Time{})
}

// serve hands a client with a ticket to its lane.
func (l *listener) serve(c net.Conn, h *handshake, client string) error {
	o := ConnOptions{Replies: h.form, BlockStatus: h.status}
	var served *Conn
	var err error
	if h.secure {
		served, err = l.pump(h, o)
	} else {
		served, err = l.direct(c, h, o)
	}
	if err != nil {
		h.hub.tickets.Add(-1)
		return err
	}
	l.exp.log.Info("client connected", "client", client, "tls", h.secure)
	l.wait.Add(1)
	go func() {
		defer l.wait.Done()
		l.exp.logEnd(served, client)
	}()
	return nil
}

// direct gives the lane the client's own socket.
func (l *listener) direct(c net.Conn, h *handshake, o ConnOptions) (*Conn, error) {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var inner error
	if err := raw.Control(func(own uintptr) { fd, inner = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if inner != nil {
		return nil, inner
	}
	served, err := h.hub.serve(fd, o)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	c.Close() // the lane has the other descriptor of it
	return served, nil
}

// stopListening ends the listeners and the handshakes. Clients that are being served stay.
func (e *Export) stopListening() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.listeners {
		l.net.Close()
		l.abort()
	}
}

// awaitListeners waits until everything that the listeners have started has ended.
func (e *Export) awaitListeners(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for _, l := range e.listeners { // there are no more to come
			l.wait.Wait()
		}
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
