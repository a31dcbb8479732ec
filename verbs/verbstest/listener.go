package verbstest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"iserblk/verbs"
)

// backlog is how many connections may wait for Accept.
const backlog = 128

// Listener is a portal of the fake target.
type Listener struct {
	net   *Net
	addr  netip.AddrPort
	queue chan *Peer
	done  chan struct{}

	mu      sync.Mutex
	private []byte
	reject  int
	silent  bool
	stalled bool
	closed  bool
	peers   map[*Peer]struct{}
}

func newListener(n *Net, addr netip.AddrPort) *Listener {
	return &Listener{
		net: n, addr: addr,
		queue: make(chan *Peer, backlog), done: make(chan struct{}),
		peers: make(map[*Peer]struct{}),
	}
}

// Addr is the portal's address.
func (l *Listener) Addr() netip.AddrPort { return l.addr }

// Accept is AcceptPeer for whoever needs no faults (verbs.Listener).
func (l *Listener) Accept(ctx context.Context) (verbs.Peer, error) {
	p, err := l.AcceptPeer(ctx)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// AcceptPeer gives the next connection. Its error is ctx's, or net.ErrClosed after Close.
func (l *Listener) AcceptPeer(ctx context.Context) (*Peer, error) {
	select {
	case p := <-l.queue:
		return p, nil
	default:
	}
	select {
	case p := <-l.queue:
		return p, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close ends the portal. Connections that nobody has accepted end with it, the others stay.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	close(l.done)
	l.mu.Unlock()
	l.net.forget(l)
	for {
		select {
		case p := <-l.queue:
			p.Disconnect()
		default:
			return nil
		}
	}
}

// SetPrivateData is what later connections get back in the CM reply.
func (l *Listener) SetPrivateData(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.private = append([]byte(nil), b...)
}

// SetReject refuses later connections with a CM reason; 0 takes them again.
func (l *Listener) SetReject(reason int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reject = reason
}

// SetSilent leaves later connection requests without an answer.
func (l *Listener) SetSilent(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent = on
}

// SetBlackhole makes the portal one behind a dead link: every connection is stalled (see Peer.SetStalled) and new
// ones get no answer.
func (l *Listener) SetBlackhole(on bool) {
	l.mu.Lock()
	l.silent, l.stalled = on, on
	l.mu.Unlock()
	for _, p := range l.Peers() {
		p.SetStalled(on)
	}
}

// Raise reports an event on every connection through this portal: a port going down, for one.
func (l *Listener) Raise(kind verbs.EventKind) {
	for _, p := range l.Peers() {
		p.Raise(kind)
	}
}

// Peers are the connections that are not closed, in no particular order.
func (l *Listener) Peers() []*Peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*Peer, 0, len(l.peers))
	for p := range l.peers {
		out = append(out, p)
	}
	return out
}

// admit decides about a connection request.
func (l *Listener) admit(ctx context.Context) error {
	l.mu.Lock()
	reject, silent := l.reject, l.silent
	l.mu.Unlock()
	if silent {
		<-ctx.Done()
		return fmt.Errorf("%w: %w", verbs.ErrTimeout, ctx.Err())
	}
	if reject != 0 {
		return &verbs.RejectError{Reason: reject}
	}
	return ctx.Err()
}

func (l *Listener) enqueue(c *conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return &verbs.RejectError{Reason: 8}
	}
	c.private = l.private
	p := &Peer{c: c}
	c.stalled = l.stalled
	select {
	case l.queue <- p:
	default:
		return fmt.Errorf("%w: %d connections wait for Accept", verbs.ErrTimeout, backlog)
	}
	l.peers[p] = struct{}{}
	c.onClose = func() { l.drop(p) }
	return nil
}

func (l *Listener) drop(p *Peer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.peers, p)
}
