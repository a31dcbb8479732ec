//go:build cgo && linux

package rdmacore

// #include "listen.h"
import "C"

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"iserblk/verbs"
)

var (
	_ verbs.Acceptor = (*Provider)(nil)
	_ verbs.Listener = (*listener)(nil)
	_ verbs.Peer     = (*peerConn)(nil)
)

const (
	backlog      = 128 // connection requests that the kernel keeps
	maxPrivate   = 56
	minRecvDepth = 2
)

// Listen takes connections at an address of an RDMA device of this host, or at all of them (verbs.Acceptor). Its errors
// are *verbs.OpError.
func (p *Provider) Listen(_ context.Context, a verbs.ListenAttr) (verbs.Listener, error) {
	if err := Library(); err != nil {
		return nil, err
	}
	fail := func(err error) (verbs.Listener, error) {
		return nil, &verbs.OpError{Op: "listen at", Peer: a.Addr.String(), Err: err}
	}
	if len(a.PrivateData) > maxPrivate || a.RecvDepth < minRecvDepth || a.RecvSize < 1 {
		return fail(fmt.Errorf("%d bytes of private data, %d receives of %d bytes", len(a.PrivateData), a.RecvDepth, a.RecvSize))
	}
	l := &listener{attr: a, accepted: make(chan *peerConn, backlog), done: make(chan struct{})}
	at := cAddr(a.Addr)
	if r := C.blk_listen(&l.c, &at, backlog); r < 0 {
		return fail(errno(r))
	}
	events, err := newPoller(int(C.blk_listen_fd(l.c)), "rdma-listen-events")
	if err != nil {
		C.blk_listen_close(l.c)
		return fail(err)
	}
	l.events = events
	l.addr = netip.AddrPortFrom(a.Addr.Addr(), uint16(C.blk_listen_port(l.c)))
	go l.run()
	return l, nil
}

// listener takes connections at one address.
type listener struct {
	c        *C.struct_blk_listener
	attr     verbs.ListenAttr
	addr     netip.AddrPort
	events   *poller
	accepted chan *peerConn
	done     chan struct{} // closed by Close
	once     sync.Once
	making   sync.WaitGroup // run, and connections that are not accepted yet
}

// Addr is where it listens.
func (l *listener) Addr() netip.AddrPort { return l.addr }

// run turns connection requests into peers until the listener is closed.
func (l *listener) run() {
	for {
		var req C.struct_blk_request
		var r C.int
		err := l.events.wait(func() bool {
			r = C.blk_listen_next(l.c, &req)
			return r != -C.int(syscall.EAGAIN)
		})
		if err != nil || r < 0 {
			return
		}
		if r == 1 {
			l.take(req)
		}
	}
}

// take answers one request, beside others: it waits for the initiator.
func (l *listener) take(req C.struct_blk_request) {
	l.making.Add(1)
	go func() {
		defer l.making.Done()
		p, err := newPeerConn(l.attr, &req)
		if err != nil {
			return // the initiator has been refused, or has given up
		}
		select {
		case l.accepted <- p:
		case <-l.done:
			_ = p.Close()
		}
	}()
}

// Accept waits for a connection that is up.
func (l *listener) Accept(ctx context.Context) (verbs.Peer, error) {
	select {
	case p := <-l.accepted:
		return p, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close stops listening. Connections that nobody has accepted end.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.events.close()
		C.blk_listen_close(l.c)
		l.making.Wait()
		for {
			select {
			case p := <-l.accepted:
				_ = p.Close()
			default:
				return
			}
		}
	})
	return nil
}
