package isertarget

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"iserblk/session/pdu"
	"iserblk/verbs"
)

// cmReply is what LIO answers an initiator that cannot have keys invalidated: neither zero-based addresses nor SEND
// with invalidate (IBTA annex A12).
var cmReply = []byte{0xc0, 0, 0, 0}

// Portal is one address that a target is served at. It may go down and come up again, or freeze. All methods may be
// called from any goroutine.
type Portal struct {
	t        *Target
	acceptor verbs.Acceptor // nil when the listener was somebody else's
	group    uint16
	number   int // relative target port identifier

	mu   sync.Mutex
	addr netip.AddrPort
	l    verbs.Listener // nil while it is down
	gate chan struct{}  // not nil while it is frozen; its end lets everything through
}

// Listen opens a portal of the target on a provider and serves it until Close. Port 0 takes a free one. The group is
// the portal's target portal group tag: sessions through portals of one group replace each other when their initiator
// and ISID are the same.
func (t *Target) Listen(ctx context.Context, a verbs.Acceptor, addr netip.AddrPort, group uint16) (*Portal, error) {
	p := t.addPortal(&Portal{t: t, acceptor: a, group: group, addr: addr})
	if err := p.Up(ctx); err != nil {
		t.dropPortal(p)
		return nil, err
	}
	return p, nil
}

// Serve is Listen with a listener that is there already. Its private data should say C0: no zero-based addresses and
// no remote invalidation.
func (t *Target) Serve(l verbs.Listener, group uint16) *Portal {
	p := t.addPortal(&Portal{t: t, group: group, addr: l.Addr()})
	p.serve(l)
	return p
}

func (t *Target) addPortal(p *Portal) *Portal {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.portalCount++
	p.number = t.portalCount
	t.portals = append(t.portals, p)
	return p
}

func (t *Target) dropPortal(p *Portal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, q := range t.portals {
		if p == q {
			t.portals = append(t.portals[:i:i], t.portals[i+1:]...)
		}
	}
}

// Portals are the target's portals in the order in which they were opened, those that are down included.
func (t *Target) Portals() []*Portal {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]*Portal(nil), t.portals...)
}

// Addr is where the portal listens, or did.
func (p *Portal) Addr() netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addr
}

// Group is the portal's target portal group tag.
func (p *Portal) Group() uint16 { return p.group }

// attr is what the portal asks of its provider.
func (p *Portal) attr() verbs.ListenAttr {
	o := p.t.opt
	return verbs.ListenAttr{Addr: p.addr, PrivateData: cmReply, RecvDepth: o.Receives, RecvSize: o.messageSize()}
}

// messageSize is the longest message that an initiator may send.
func (o Options) messageSize() int { return messageLen + max(maxLoginText, o.RecvSegment) + pdu.MaxPad }

// Up makes a portal that is down take connections again, at the same address.
func (p *Portal) Up(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.l != nil:
		return nil
	case p.acceptor == nil:
		return errors.New("isertarget: this portal's listener was not opened by Listen")
	}
	l, err := p.acceptor.Listen(ctx, p.attr())
	if err != nil {
		return fmt.Errorf("isertarget: open portal %v: %w", p.addr, err)
	}
	p.addr = l.Addr()
	p.start(l)
	return nil
}

func (p *Portal) serve(l verbs.Listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.start(l)
}

// start takes connections from l. p.mu is held.
func (p *Portal) start(l verbs.Listener) {
	p.l = l
	p.t.wg.Go(func() {
		for {
			e, err := l.Accept(p.t.ctx)
			if err != nil {
				return
			}
			p.t.wg.Go(p.t.newConn(e, p).serve)
		}
	})
}

// Down stops listening and ends every connection through the portal: its port has lost its link. Discovery still
// names it.
func (p *Portal) Down() {
	p.mu.Lock()
	l := p.l
	p.l = nil
	p.mu.Unlock()
	if l == nil {
		return
	}
	_ = l.Close()
	for _, c := range p.t.Conns() {
		if c.portal == p {
			c.Close()
		}
	}
}

// Freeze makes the portal one of a target that hangs: connections stay, are even made, and nothing is answered until
// Thaw.
func (p *Portal) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate == nil {
		p.gate = make(chan struct{})
	}
}

// Thaw lets everything through that has waited since Freeze.
func (p *Portal) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate != nil {
		close(p.gate)
		p.gate = nil
	}
}

// pass waits while the portal is frozen.
func (p *Portal) pass() {
	for {
		p.mu.Lock()
		gate := p.gate
		p.mu.Unlock()
		if gate == nil {
			return
		}
		select {
		case <-gate:
		case <-p.t.ctx.Done():
			return
		}
	}
}
