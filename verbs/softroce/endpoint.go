package softroce

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"iserblk/verbs"
	"iserblk/verbs/softroce/cm"
	"iserblk/verbs/softroce/wire"
)

// endpoint is one local address: its lobby, its connection manager and its connections.
type endpoint struct {
	provider *Provider
	route    route // of the first connection: which device the address belongs to
	local    netip.Addr
	buffer   int // bytes that the kernel lets wait in a socket
	tag      uint8
	mail     *mailbox
	lobby    *os.File
	raw      syscall.RawConn
	done     chan struct{} // the lobby's goroutine has ended
	mailDone chan struct{}

	users atomic.Int32 // grows under Provider.mu, or while there is another user

	mu        sync.Mutex
	manager   *cm.Manager
	flows     map[netip.Addr]*wire.Flow // to QP 1 of peers, for what is sent; emptied when it grows
	psn       wire.PSN                  // of the next message to a QP 1
	byQPN     map[uint32]*conn
	byID      map[cm.ID]*conn
	listeners map[uint16]*listener
	link      verbs.EventKind // the last that was told
}

// openEndpoint binds an address.
func openEndpoint(p *Provider, r route) (e *endpoint, err error) {
	e = &endpoint{
		provider: p, route: r, local: r.local, flows: make(map[netip.Addr]*wire.Flow),
		byQPN: make(map[uint32]*conn), byID: make(map[cm.ID]*conn), listeners: make(map[uint16]*listener),
		done: make(chan struct{}), mailDone: make(chan struct{}), psn: wire.PSN(random32() & wire.PSNMask),
	}
	fd, err := openLobby(r.local)
	if err != nil {
		return nil, err
	}
	e.buffer = receiveBuffer(fd)
	e.lobby = os.NewFile(uintptr(fd), "softroce-lobby")
	if e.raw, err = e.lobby.SyscallConn(); err != nil {
		e.lobby.Close()
		return nil, err
	}
	if e.tag, e.mail, err = claimTag(r.local); err != nil {
		e.lobby.Close()
		return nil, &verbs.OpError{Op: "share UDP port 4791 of", Peer: r.local.String(), Err: err}
	}
	e.manager = cm.NewManager(cm.Config{Addr: r.local.WithZone(""), GUID: p.guid, Rand: random64, Prefix: e.tag})
	go e.serve()
	go e.serveMail()
	return e, nil
}

func random64() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.NativeEndian.Uint64(b[:])
}

func random32() uint32 { return uint32(random64()) }

// serve takes what comes to the lobby, and keeps the connection manager's time.
func (e *endpoint) serve() {
	defer close(e.done)
	in, errs := newInBatch(), newErrorReader()
	for {
		var refusing []netip.Addr
		n := 0
		err := e.raw.Read(func(fd uintptr) bool {
			n = in.receive(int(fd))
			for by, ok := errs.next(int(fd)); ok; by, ok = errs.next(int(fd)) {
				refusing = append(refusing, by)
			}
			return n > 0 || len(refusing) > 0
		})
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		for i := range n {
			pkt, from := in.packet(i)
			e.dispatch(pkt, from, true)
		}
		for _, by := range refusing {
			e.refused(by)
		}
		e.tick()
	}
}

func (e *endpoint) serveMail() {
	defer close(e.mailDone)
	e.mail.serve(func(pkt []byte, from netip.AddrPort) { e.dispatch(pkt, from, false) })
}

// dispatch brings a packet to whom it is for. first: it has not been handed on yet, and may be.
func (e *endpoint) dispatch(pkt []byte, from netip.AddrPort, first bool) {
	qpn, ok := wire.DestQP(pkt)
	switch {
	case !ok:
	case qpn == wire.GSI:
		e.takeMAD(pkt, from, first)
	case uint8(qpn>>16) != e.tag:
		if first {
			e.mail.handOn(tagName(e.local, uint8(qpn>>16)), pkt, from)
		}
	default:
		e.mu.Lock()
		c := e.byQPN[qpn]
		e.mu.Unlock()
		if c != nil {
			c.takeFromLobby(pkt, from)
		}
	}
}

// takeMAD checks a message to QP 1 and gives it to the connection manager that it is for.
func (e *endpoint) takeMAD(pkt []byte, from netip.AddrPort, first bool) {
	if len(pkt) != madPacketLen {
		return
	}
	h, mad, err := wire.Parse(pkt[:len(pkt)-wire.ICRCLen])
	if err != nil || h.Opcode != wire.UDSendOnly || h.QKey != wire.GSIQKey || len(mad) != cm.MADLen {
		return
	}
	if !wire.NewFlow(from, netip.AddrPortFrom(e.local, Port)).Check(from.Port(), pkt) {
		return
	}
	m, err := cm.ParseMAD(mad)
	if err != nil || first && e.handOnMAD(&m, pkt, from) {
		return
	}
	e.mu.Lock()
	e.manager.Handle(time.Now(), from.Addr(), mad)
	e.settle()
}

// madPacketLen is the length of a packet with a message of the connection manager: BTH, DETH, MAD and ICRC.
const madPacketLen = wire.BTHLen + 8 + cm.MADLen + wire.ICRCLen

// handOnMAD passes a message on to another process of this address if it is for a connection of that, or asks for a port
// that only another one listens on. It says whether somebody else has it now.
func (e *endpoint) handOnMAD(m *cm.MAD, pkt []byte, from netip.AddrPort) bool {
	if m.Attr() != cm.AttrREQ {
		tag := uint8(m.RemoteID() >> 24)
		return tag != e.tag && tag != 0 && e.mail.handOn(tagName(e.local, tag), pkt, from)
	}
	req, err := cm.ParseREQ(m)
	port, ok := cm.ServicePort(req.ServiceID)
	if err != nil || !ok {
		return false
	}
	e.mu.Lock()
	mine := e.listeners[port] != nil
	e.mu.Unlock()
	return !mine && e.mail.handOn(portName(e.local, port), pkt, from)
}

// tick lets the connection manager do what is due.
func (e *endpoint) tick() {
	e.mu.Lock()
	e.manager.Tick(time.Now())
	e.settle()
}

// settle sends and does what the connection manager has come to want, sets its alarm and unlocks e.mu.
func (e *endpoint) settle() {
	for more := true; more; {
		for _, o := range e.manager.Outgoing() {
			e.sendMAD(o.To, &o.MAD)
		}
		events := e.manager.Events()
		for i := range events {
			e.handle(&events[i])
		}
		more = len(events) > 0
	}
	at, ok := e.manager.Deadline()
	if !ok {
		at = time.Time{}
	}
	_ = e.lobby.SetReadDeadline(at)
	idle := e.manager.Len() == 0
	e.mu.Unlock()
	if idle {
		e.provider.settled(e)
	}
}

// sendMAD frames a message for QP 1 of a host and sends it. One that cannot be sent is as good as lost. e.mu is held.
func (e *endpoint) sendMAD(to netip.Addr, m *cm.MAD) {
	h := wire.Header{
		Opcode: wire.UDSendOnly, MigReq: true, PKey: wire.DefaultPKey, DestQP: wire.GSI, PSN: e.psn,
		QKey: wire.GSIQKey, SrcQP: wire.GSI,
	}
	e.psn = (e.psn + 1) & wire.PSNMask
	dst := netip.AddrPortFrom(to.WithZone(e.local.Zone()), Port)
	pkt := append(h.Append(make([]byte, 0, madPacketLen)), m[:]...)
	pkt = e.flow(dst).SealWhole(pkt)
	_ = e.raw.Control(func(fd uintptr) { sendTo(int(fd), pkt, dst) })
}

// maxFlows bounds the memory for peers that have been talked to.
const maxFlows = 1024

func (e *endpoint) flow(dst netip.AddrPort) *wire.Flow {
	f := e.flows[dst.Addr()]
	if f == nil {
		if len(e.flows) >= maxFlows {
			clear(e.flows)
		}
		f = wire.NewFlow(netip.AddrPortFrom(e.local, Port), dst)
		e.flows[dst.Addr()] = f
	}
	return f
}

// close frees the address. Nobody uses it any more.
func (e *endpoint) close() {
	e.mail.close()
	_ = e.lobby.Close()
}
