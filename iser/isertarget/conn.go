package isertarget

import (
	"net/netip"
	"slices"
	"sync"

	"iserblk/session/pdu"
	"iserblk/verbs"
)

// Conn is one connection of the target.
type Conn struct {
	t      *Target
	e      verbs.Peer
	id     int
	portal *Portal
	login  login      // belongs to the serving goroutine
	sess   *session   // set once, under Target.mu, when login has succeeded
	work   chan *task // to the workers, nil when there are none; belongs to the serving goroutine

	sendMu sync.Mutex
	statSN pdu.StatSN
}

func (t *Target) newConn(e verbs.Peer, p *Portal) *Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.connCount++
	c := &Conn{t: t, e: e, id: t.connCount, portal: p, statSN: firstStatSN}
	t.conns[c.id] = c
	return c
}

// firstStatSN is where every connection begins: near the end of the number space, so that all tests wrap it.
const firstStatSN = 0xfffffffc

// Conns are the open connections, oldest first.
func (t *Target) Conns() []*Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*Conn, 0, len(t.conns))
	for _, c := range t.conns {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *Conn) int { return a.id - b.id })
	return out
}

// ID is the connection's number, from 1, as in Command.Conn.
func (c *Conn) ID() int { return c.id }

// Portal is the address that the connection came in through.
func (c *Conn) Portal() netip.AddrPort { return c.e.LocalAddr() }

// PrivateData is what the initiator's connection request carried: in its first byte the flags of IBTA annex A12.
func (c *Conn) PrivateData() []byte { return c.e.PrivateData() }

// Close ends the connection. Commands that were parked stay so.
func (c *Conn) Close() { _ = c.e.Close() }

// Send sends a message of the test's own making, past hooks and counters.
func (c *Conn) Send(msg []byte) error { return c.e.Send(msg) }

// serve handles what arrives until the connection ends.
func (c *Conn) serve() {
	defer c.t.forget(c)
	defer c.Close()
	defer func() { c.dismiss() }()
	buf := make([]byte, c.t.opt.messageSize())
	for {
		n, err := c.e.Recv(c.t.ctx, buf)
		c.portal.pass()
		if err != nil || !c.handle(buf[:n]) {
			return
		}
	}
}

// handle returns whether the connection goes on.
func (c *Conn) handle(msg []byte) bool {
	if len(msg) < messageLen {
		c.t.violate("message of %d bytes", len(msg))
		return false
	}
	h, bhs, data := parseHeader(msg), pdu.BHS(msg[headerLen:messageLen]), msg[messageLen:]
	if !c.check(msg, h, bhs, data) {
		return false
	}
	if c.sess == nil {
		return c.loginPDU(bhs, data[:bhs.DataSegmentLength()])
	}
	return c.dispatch(h, bhs, data[:bhs.DataSegmentLength()])
}

// check finds what holds for no PDU of an initiator.
func (c *Conn) check(msg []byte, h header, bhs pdu.BHS, data []byte) bool {
	n := bhs.DataSegmentLength()
	switch {
	case h.flags&0xf0 != typeControl:
		c.t.violate("iSER header type 0x%02x", h.flags)
	case msg[1]|msg[2]|msg[3] != 0:
		c.t.violate("reserved bytes of the iSER header are set")
	case bhs.TotalAHSLength() != 0:
		c.t.violate("%v with an additional header segment", bhs.Opcode())
	case n > len(data) || len(data)-n > pdu.MaxPad:
		c.t.violate("%v declares %d data bytes, %d came", bhs.Opcode(), n, len(data))
	case bhs.Opcode() != pdu.OpSCSICommand && (h.flags != typeControl || h.writeTag|h.readTag != 0):
		c.t.violate("%v with a STag", bhs.Opcode())
	default:
		return true
	}
	return false
}

// dispatch handles a PDU of the full-feature phase.
func (c *Conn) dispatch(h header, bhs pdu.BHS, data []byte) bool {
	if !c.sequence(bhs) {
		return true // a command outside the window is dropped, as LIO does
	}
	op := bhs.Opcode()
	if c.sess.discovery && op != pdu.OpTextRequest && op != pdu.OpLogoutRequest {
		c.t.violate("%v in a discovery session", op)
		return true
	}
	switch op {
	case pdu.OpSCSICommand:
		return c.command(h, pdu.SCSICommand(bhs), data)
	case pdu.OpNOPOut:
		return c.nop(pdu.NOPOut(bhs), data)
	case pdu.OpTMFRequest:
		return c.taskManagement(pdu.TMFRequest(bhs))
	case pdu.OpTextRequest:
		return c.text(pdu.TextRequest(bhs), data)
	case pdu.OpLogoutRequest:
		return c.logout(pdu.LogoutRequest(bhs))
	}
	c.t.violate("unexpected %v", op)
	return false
}

// sequence takes the CmdSN of a request (RFC 7143 4.2.2.1).
func (c *Conn) sequence(bhs pdu.BHS) bool {
	sn, s := bhs.CmdSN(), c.sess
	if bhs.Immediate() {
		return true
	}
	c.t.mu.Lock()
	ok := sn == s.expCmdSN && !s.maxCmdSN.Less(sn)
	exp, last := s.expCmdSN, s.maxCmdSN
	if ok {
		s.expCmdSN = sn.Add(1)
	}
	c.t.mu.Unlock()
	if !ok {
		c.t.violate("%v with CmdSN %d, expected %d, last allowed %d", bhs.Opcode(), sn, exp, last)
	}
	return ok
}

// counters are those that every answer carries.
type counters struct {
	stat     pdu.StatSN
	exp, max pdu.CmdSN
}

// reply sends a PDU whose header build writes. advance takes a StatSN for it.
func (c *Conn) reply(advance bool, data []byte, build func(dst []byte, n counters)) {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	var bhs [pdu.BHSLen]byte
	build(bhs[:], c.counters(advance))
	msg := NewMessage(bhs[:], data)
	if c.t.opt.PadResponses {
		msg = pad(msg)
	}
	c.send(msg)
}

func (c *Conn) counters(advance bool) counters {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	n := counters{stat: c.statSN}
	if c.sess != nil {
		n.exp, n.max = c.sess.expCmdSN, c.sess.maxCmdSN
	}
	if advance {
		c.statSN++
	}
	return n
}

// send runs the Message hook. An error shows at the next Recv.
func (c *Conn) send(msg []byte) {
	out := [][]byte{msg}
	if hook := c.t.currentHooks().Message; hook != nil {
		out = hook(Message{Conn: c.id, Bytes: msg})
	}
	c.portal.pass()
	for _, m := range out {
		if c.e.Send(m) != nil {
			return
		}
	}
}
