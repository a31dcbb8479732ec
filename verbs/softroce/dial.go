package softroce

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/verbs"
	"iserblk/verbs/softroce/cm"
	"iserblk/verbs/softroce/rc"
	"iserblk/verbs/softroce/wire"
)

const (
	// connectTime bounds Dial if its context does not.
	connectTime = 10 * time.Second
	// staleTries is how often a request is repeated that the peer takes for an old connection of ours.
	staleTries = 4

	maxInline = 256
	// readDepth is how many RDMA reads a peer may have outstanding here.
	readDepth = 32
	// rnrTimerCode has a peer that finds no receive buffer wait 0.64 ms.
	rnrTimerCode = 12
	// defaultAckTimeout is long enough for a peer on a busy machine.
	defaultAckTimeout = 134 * time.Millisecond
	// peerTimeoutCode is the least time that the peer gives us for an acknowledgement, 268 ms: the driver makes them, and
	// its process may not get a processor for a while.
	peerTimeoutCode = 16
	// window is how many packets may be under way, at most: as many as rxe takes, and has under way itself.
	window = 128
)

// Dial connects to a.Dst. Its errors are *verbs.OpError and match ErrTimeout, ErrRejected or the context's where one of
// them is the cause.
func (p *Provider) Dial(ctx context.Context, a verbs.DialAttr) (verbs.Conn, error) {
	a.Dst = netip.AddrPortFrom(a.Dst.Addr().Unmap(), a.Dst.Port())
	a.Src = a.Src.Unmap()
	for try := 0; ; try++ {
		c, err := p.dial(ctx, a)
		if err == nil {
			return c, nil
		}
		var reject *verbs.RejectError
		if try < staleTries && errors.As(err, &reject) && reject.Reason == cm.ReasonStale {
			continue // with another queue pair
		}
		return nil, explain(a, err)
	}
}

func explain(a verbs.DialAttr, err error) error {
	if op := new(verbs.OpError); errors.As(err, &op) {
		return err
	}
	op := &verbs.OpError{Op: "connect to", Peer: a.Dst.String(), Err: err}
	switch {
	case errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, verbs.ErrTimeout):
		op.Err = fmt.Errorf("%w: %w", verbs.ErrTimeout, err)
		fallthrough
	case errors.Is(err, verbs.ErrTimeout):
		op.Hint = "check that the target serves iSER there, and that UDP port 4791 is open both ways and not translated (NAT)"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		op.Hint = fmt.Sprintf("no interface has the address %s: ip address", a.Src)
	}
	return op
}

func checkAttr(a verbs.DialAttr) error {
	switch {
	case a.Arena == nil:
		return errors.New("no arena")
	case len(a.PrivateData) > cm.UserPrivateLen:
		return fmt.Errorf("%d bytes of private data, at most %d fit", len(a.PrivateData), cm.UserPrivateLen)
	case a.RetryCount > 6:
		return fmt.Errorf("retry count %d, at most 6: rxe takes 7 as for ever", a.RetryCount)
	case a.RNRRetry > 7:
		return fmt.Errorf("RNR retry count %d, at most 7", a.RNRRetry)
	case a.SendDepth < 1 || a.RecvDepth < 1 || len(a.Recvs) > a.RecvDepth:
		return fmt.Errorf("send depth %d, receive depth %d for %d first receives", a.SendDepth, a.RecvDepth, len(a.Recvs))
	case a.SendDepth > maxDepth || a.RecvDepth > maxDepth:
		return fmt.Errorf("queues of more than %d; use a smaller queue depth", maxDepth)
	}
	return nil
}

// maxDepth bounds the memory of a queue.
const maxDepth = 1 << 15

func (p *Provider) dial(ctx context.Context, a verbs.DialAttr) (*conn, error) {
	if err := checkAttr(a); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := findRoute(a.Src, a.Dst.Addr())
	if err != nil {
		return nil, err
	}
	e, err := p.acquire(r)
	if err != nil {
		return nil, err
	}
	c, err := e.newConn(connAttr{
		peer: a.Dst, route: r, tos: a.TOS, pin: a.Src.IsValid(), arena: a.Arena, cfg: configOf(a, e.pathMTU(r, a.Dst.Addr())),
	})
	if err != nil {
		p.release(e)
		return nil, err
	}
	c.first = a.Recvs
	if err := c.connect(ctx, a); err != nil {
		c.destroy()
		return nil, err
	}
	return c, nil
}

func configOf(a verbs.DialAttr, mtu int) rc.Config {
	timeout := a.AckTimeout
	if timeout <= 0 {
		timeout = defaultAckTimeout
	}
	return rc.Config{
		MTU: mtu, AckTimeout: cm.Timeout(cm.TimeoutCode(timeout)), RetryCount: a.RetryCount, RNRTimer: rnrTimerCode,
		SendDepth: a.SendDepth, RecvDepth: a.RecvDepth, MaxInline: min(max(a.MaxInline, 0), maxInline),
	}
}

// Each packet that waits in a socket is charged with the buffer that it lies in, and some more (struct sk_buff).
const (
	packetOverhead = 1 << 10
	leastWindow    = 8
)

// charge is about what the kernel charges for a packet: drivers take a power of two.
func charge(mtu int) int { return 2*mtu + packetOverhead }

// pathMTU is the most data in a packet that the way to dst allows, and that a peer's full window of packets fits the
// receive buffer with. Peers on this host adapt to a small one, and gain more from large packets.
func (e *endpoint) pathMTU(r route, dst netip.Addr) int {
	mtu := r.pathMTU()
	if isLocal(dst) {
		return mtu
	}
	for mtu > 1024 && window*charge(mtu) > e.buffer {
		mtu /= 2
	}
	return mtu
}

// windowFor is how many packets that answer our reads may be under way.
func (e *endpoint) windowFor(mtu int) int { return min(window, max(leastWindow, e.buffer/charge(mtu))) }

// connAttr is what every connection begins with.
type connAttr struct {
	peer  netip.AddrPort
	route route
	tos   uint8
	pin   bool // leave by the route's device even if the kernel would now choose another
	arena *verbs.Arena
	cfg   rc.Config
}

// newConn makes a connection without a peer. The endpoint counts it as a user until destroy.
func (e *endpoint) newConn(a connAttr) (c *conn, err error) {
	c = &conn{
		end: e, peer: a.peer, gid: a.peer.Addr().WithZone(""), info: a.route.info(a.cfg.MTU), events: newEventQueue(), cfg: a.cfg, receiver: -1,
		outcome: make(chan error, 1), ended: make(chan struct{}), mem: newMemory(a.arena), in: newInBatch(),
	}
	c.cfg.Memory = c.mem.Memory
	c.cfg.Window = e.windowFor(c.cfg.MTU)
	c.cfg.RecvPSN = wire.PSN(random32() & wire.PSNMask)
	attr := socketAttr{local: netip.AddrPortFrom(e.local, 0), tos: a.tos}
	if a.pin && !a.route.loopback && !isLocal(a.peer.Addr()) {
		attr.device = a.route.device
	}
	var port uint16
	if c.fd, port, err = openSender(attr); err != nil {
		return nil, err
	}
	if c.wake, err = newWake(); err != nil {
		unix.Close(c.fd)
		return nil, err
	}
	c.local = netip.AddrPortFrom(e.local, port)
	to := netip.AddrPortFrom(c.gid.WithZone(e.local.Zone()), Port)
	c.out = newOutBatch(c.fd, c.local, to)
	c.flowIn = wire.NewFlow(to, netip.AddrPortFrom(e.local, Port))
	return c, nil
}

// connect asks the peer and waits for its answer.
func (c *conn) connect(ctx context.Context, a verbs.DialAttr) error {
	if err := c.end.register(c); err != nil {
		return err
	}
	err := c.end.connect(c, cm.Request{
		Dst: netip.AddrPortFrom(c.gid, a.Dst.Port()), SrcPort: c.local.Port(), QPN: c.qpn, RecvPSN: uint32(c.cfg.RecvPSN),
		ResponderResources: readDepth, InitiatorDepth: 1, RetryCount: a.RetryCount, RNRRetry: a.RNRRetry,
		MTU: cm.MTUCode(c.cfg.MTU), AckTimeout: max(cm.TimeoutCode(c.cfg.AckTimeout), peerTimeoutCode), TrafficClass: a.TOS,
		Private: a.PrivateData,
	})
	if err != nil {
		return err
	}
	limit := time.NewTimer(connectTime)
	defer limit.Stop()
	select {
	case err = <-c.outcome:
		return err
	case <-ctx.Done():
		err = ctx.Err()
	case <-limit.C:
		err = fmt.Errorf("%w: no answer to the connection request within %v", verbs.ErrTimeout, connectTime)
	}
	c.end.abandon(c)
	return err
}

// remote is what the peer says of itself.
type remote struct {
	qpn, sendPSN       uint32
	rnrRetry, ird, ord uint8
	private            []byte
}

// start makes the queue pair ready to receive and to send.
func (c *conn) start(r remote) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cfg.LocalQPN, c.cfg.RemoteQPN = c.qpn, r.qpn
	c.cfg.SendPSN, c.cfg.RNRRetry = wire.PSN(r.sendPSN), r.rnrRetry
	c.cfg.IRD, c.cfg.ORD = int(min(r.ird, readDepth)), int(min(r.ord, readDepth))
	c.private = append([]byte(nil), r.private...)
	qp, err := rc.New(c.cfg)
	if err != nil {
		return err
	}
	for i := range c.first {
		c.first[i].SGE.LKey = c.mem.lkeyAt(c.first[i].SGE.Addr)
	}
	if _, err := qp.PostRecv(c.first); err != nil {
		return err
	}
	c.qp = qp
	return nil
}
