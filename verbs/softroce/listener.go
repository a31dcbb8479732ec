package softroce

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"iserblk/verbs"
	"iserblk/verbs/softroce/cm"
	"iserblk/verbs/softroce/rc"
)

const (
	// backlog is how many connections may wait for Accept.
	backlog = 128
	// peerSends is how many operations of a passive end may be outstanding at a time; more wait.
	peerSends = 64
	// firstPort and ports are where a port is chosen from when none is given.
	firstPort = 49152
	ports     = 16384
)

// listener takes connections at one port of one address.
type listener struct {
	end   *endpoint
	attr  verbs.ListenAttr
	mail  *mailbox // what other processes of this address hand on
	queue chan *peer
	done  chan struct{}
	once  sync.Once
}

// Listen takes connections at a.Addr. The address has to be one of this host's.
func (p *Provider) Listen(_ context.Context, a verbs.ListenAttr) (verbs.Listener, error) {
	a.Addr = netip.AddrPortFrom(a.Addr.Addr().Unmap(), a.Addr.Port())
	l, err := p.listen(a)
	if err != nil {
		return nil, &verbs.OpError{Op: "listen on", Peer: a.Addr.String(), Err: err}
	}
	return l, nil
}

func (p *Provider) listen(a verbs.ListenAttr) (*listener, error) {
	if a.RecvDepth < 1 || a.RecvSize < 1 || a.RecvDepth > maxDepth || len(a.PrivateData) > cm.UserPrivateLen {
		return nil, fmt.Errorf("%d receives of %d bytes, %d bytes of private data", a.RecvDepth, a.RecvSize, len(a.PrivateData))
	}
	r, err := findRoute(a.Addr.Addr(), a.Addr.Addr())
	if err != nil {
		return nil, err
	}
	e, err := p.acquire(r)
	if err != nil {
		return nil, err
	}
	l := &listener{end: e, attr: a, queue: make(chan *peer, backlog), done: make(chan struct{})}
	if err := e.listen(l); err != nil {
		p.release(e)
		return nil, err
	}
	go l.mail.serve(func(pkt []byte, from netip.AddrPort) { e.dispatch(pkt, from, false) })
	return l, nil
}

var errPortTaken = errors.New("the port is taken")

// listen enters a listener, and chooses a port for it if it has none.
func (e *endpoint) listen(l *listener) (err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	port := l.attr.Addr.Port()
	for try := 0; port == 0 && try < ports; try++ {
		candidate := firstPort + uint16(random32()%ports)
		if e.listeners[candidate] == nil {
			port = candidate
		}
	}
	if port == 0 || e.listeners[port] != nil {
		return errPortTaken
	}
	if l.mail, err = openMailbox(portName(e.local, port)); err != nil {
		return err
	}
	l.attr.Addr = netip.AddrPortFrom(l.attr.Addr.Addr(), port)
	e.listeners[port] = l
	e.manager.Listen(port)
	return nil
}

func (l *listener) Addr() netip.AddrPort { return l.attr.Addr }

// Accept gives the next connection. Its error is ctx's, or net.ErrClosed after Close.
func (l *listener) Accept(ctx context.Context) (verbs.Peer, error) {
	select {
	case p := <-l.queue:
		return p, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close stops listening. Connections that nobody has accepted are closed.
func (l *listener) Close() error {
	l.once.Do(func() {
		e := l.end
		e.mu.Lock()
		delete(e.listeners, l.attr.Addr.Port())
		e.manager.Unlisten(l.attr.Addr.Port())
		e.mu.Unlock()
		l.mail.close()
		close(l.done)
		for len(l.queue) > 0 {
			_ = (<-l.queue).Close()
		}
		e.provider.release(e)
	})
	return nil
}

// requested answers a peer that wants to connect. e.mu is held.
func (e *endpoint) requested(ev *cm.Event) {
	port, _ := cm.ServicePort(ev.REQ.ServiceID)
	l := e.listeners[port]
	if l == nil || len(l.queue) == cap(l.queue) {
		e.manager.Reject(ev.ID, cm.ReasonNoResources)
		return
	}
	c, err := l.newConn(ev)
	if err != nil {
		e.manager.Reject(ev.ID, cm.ReasonNoResources)
		return
	}
	answer := cm.Answer{
		QPN: c.qpn, RecvPSN: uint32(c.cfg.RecvPSN), ResponderResources: uint8(c.cfg.IRD), InitiatorDepth: uint8(c.cfg.ORD),
		RNRRetry: 7, Private: l.attr.PrivateData,
	}
	c.id, e.byID[ev.ID] = ev.ID, c
	e.manager.Accept(time.Now(), ev.ID, answer)
}

// newConn makes the passive end of a connection, ready to receive. e.mu is held.
func (l *listener) newConn(ev *cm.Event) (*conn, error) {
	e, req := l.end, &ev.REQ
	r, err := findRoute(e.local, req.Src.WithZone(e.local.Zone()))
	if err != nil {
		return nil, err
	}
	mtu := cm.MTU(req.MTU)
	if mtu > r.pathMTU() {
		return nil, fmt.Errorf("path MTU %d is too large", mtu)
	}
	c, err := e.newConn(connAttr{
		peer: ev.IP.Src, route: r, tos: req.TrafficClass, cfg: rc.Config{
			MTU: mtu, AckTimeout: max(cm.Timeout(req.AckTimeout), minAckTimeout), RetryCount: req.RetryCount,
			RNRTimer: rnrTimerCode, SendDepth: peerSends, RecvDepth: l.attr.RecvDepth,
		},
	})
	if err != nil {
		return nil, err
	}
	c.listener = l
	if err := c.answer(req); err != nil {
		c.free()
		return nil, err
	}
	e.users.Add(1)
	return c, nil
}

// minAckTimeout keeps a peer that announces next to nothing from making us send everything twice.
const minAckTimeout = 4 * time.Millisecond

// answer readies a passive connection. e.mu is held.
func (c *conn) answer(req *cm.REQ) error {
	if err := c.end.enroll(c); err != nil {
		return err
	}
	err := c.start(remote{
		qpn: req.QPN, sendPSN: req.RecvPSN, rnrRetry: req.RNRRetry, ird: req.InitiatorDepth, ord: req.ResponderResources,
		private: req.Private[len(req.Private)-cm.UserPrivateLen:],
	})
	if err != nil {
		delete(c.end.byQPN, c.qpn)
		return err
	}
	c.receives(c.listener.attr.RecvDepth, c.listener.attr.RecvSize)
	return nil
}
