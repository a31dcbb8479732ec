package verbstest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"iserblk/verbs"
)

var (
	_ verbs.Provider = (*Net)(nil)
	_ verbs.Acceptor = (*Net)(nil)
	_ verbs.Listener = (*Listener)(nil)
	_ verbs.Peer     = (*Peer)(nil)
)

// defaultInline is what a connection may send inline unless Net.MaxInline says otherwise: as much as siw.
const defaultInline = 80

// Net is a network of its own and the provider of connections in it. Set its fields before the first Dial.
type Net struct {
	// MaxInline is how many bytes a send may carry inline: 0 means 80, less than 0 means none.
	MaxInline int

	mu        sync.Mutex
	listeners map[netip.AddrPort]*Listener
	dials     uint16
}

// New makes an empty network.
func New() *Net { return &Net{listeners: make(map[netip.AddrPort]*Listener)} }

// Name is "verbstest".
func (n *Net) Name() string { return "verbstest" }

func device() verbs.DeviceInfo {
	return verbs.DeviceInfo{
		Name: "fake0", Port: 1, Addr: localHost, LinkLayer: "Ethernet", Active: true, PathMTU: 4096,
	}
}

var localHost = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// Devices lists the one device that there is.
func (n *Net) Devices(context.Context) ([]verbs.DeviceInfo, error) {
	return []verbs.DeviceInfo{device()}, nil
}

// Listen opens a portal (verbs.Acceptor). At gives its other face, with the faults.
func (n *Net) Listen(_ context.Context, a verbs.ListenAttr) (verbs.Listener, error) {
	l, err := n.Portal(a.Addr)
	if err != nil {
		return nil, err
	}
	l.SetPrivateData(a.PrivateData)
	return l, nil
}

// At is the portal that is open at addr, nil when there is none.
func (n *Net) At(addr netip.AddrPort) *Listener { return n.listener(addr) }

// Portal opens a portal. Its address must be free; port 0 takes one that is.
func (n *Net) Portal(addr netip.AddrPort) (*Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for port := uint16(20000); addr.Port() == 0; port++ {
		if a := netip.AddrPortFrom(addr.Addr(), port); n.listeners[a] == nil {
			addr = a
		}
	}
	if n.listeners[addr] != nil {
		return nil, &verbs.OpError{Op: "listen on", Peer: addr.String(), Err: errors.New("address in use")}
	}
	l := newListener(n, addr)
	n.listeners[addr] = l
	return l, nil
}

// Dial connects to a listener. It does not wait for Accept: the listener's settings decide at once.
func (n *Net) Dial(ctx context.Context, a verbs.DialAttr) (verbs.Conn, error) {
	c, err := n.dial(ctx, a)
	if err != nil {
		return nil, &verbs.OpError{Op: "connect to", Peer: a.Dst.String(), Err: err}
	}
	return c, nil
}

func (n *Net) dial(ctx context.Context, a verbs.DialAttr) (*conn, error) {
	if err := checkAttr(a); err != nil {
		return nil, err
	}
	l := n.listener(a.Dst)
	if l == nil {
		return nil, &verbs.RejectError{Reason: 8}
	}
	if err := l.admit(ctx); err != nil {
		return nil, err
	}
	c, err := newConn(n, l, a)
	if err != nil {
		return nil, err
	}
	if err := l.enqueue(c); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// checkAttr refuses what the contract of verbs.DialAttr forbids.
func checkAttr(a verbs.DialAttr) error {
	switch {
	case len(a.PrivateData) > 56:
		return fmt.Errorf("%d bytes of private data, at most 56 fit", len(a.PrivateData))
	case a.RetryCount > 6:
		return fmt.Errorf("retry count %d, at most 6", a.RetryCount)
	case a.SendDepth < 1 || a.RecvDepth < 1 || len(a.Recvs) > a.RecvDepth:
		return errors.New("depths do not fit")
	}
	return nil
}

func (n *Net) listener(addr netip.AddrPort) *Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.listeners[addr]
}

func (n *Net) forget(l *Listener) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.listeners, l.addr)
}

// localPort numbers connections from 49152 up, so that runs are alike.
func (n *Net) localPort() uint16 {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dials++
	return 49151 + n.dials
}

func (n *Net) inline(asked int) int {
	switch {
	case n.MaxInline < 0:
		return 0
	case n.MaxInline == 0:
		return min(asked, defaultInline)
	}
	return min(asked, n.MaxInline)
}
