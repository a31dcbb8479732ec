package cm

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// handleREQ looks at a request. What is wrong with it is answered by a REJ, and that not too often.
func (m *Manager) handleREQ(now time.Time, from netip.Addr, msg *MAD) {
	if !m.requests.take(now) {
		return
	}
	req, err := ParseREQ(msg)
	if err != nil {
		return
	}
	if c := m.asked(from, req.LocalID); c != nil && c.guid == req.GUID && c.qpn == req.QPN {
		m.again(c)
		return
	}
	ip, reason := m.judge(from, &req)
	if reason == 0 {
		reason = m.supersede(from, &req)
	}
	if reason != 0 {
		m.refuse(now, from, &req, reason)
		return
	}
	m.admit(now, from, &req, ip)
}

// asked finds the connection that a peer has asked for under an identifier of its own.
func (m *Manager) asked(from netip.Addr, remoteID uint32) *conn {
	for _, c := range m.conns {
		if c.passive && c.remoteID == remoteID && c.peer == from {
			return c
		}
	}
	return nil
}

// again answers a request that has come before.
func (m *Manager) again(c *conn) {
	switch c.state {
	case requested:
		mra := MRA{IDs: c.ids(), Received: rejectedREQ, Timeout: responseCode}
		msg := mra.Encode()
		m.send(c, &msg)
	case repSent:
		m.send(c, &c.last)
	}
}

// judge finds what makes a request one that cannot be met; the reason is 0 if there is nothing.
func (m *Manager) judge(from netip.Addr, req *REQ) (IPHeader, uint16) {
	port, ok := ServicePort(req.ServiceID)
	ip, err := ParseIPHeader(&req.Private)
	switch {
	case !ok || !m.listening[port]:
		return ip, ReasonInvalidService
	case req.TransportType != 0:
		return ip, ReasonInvalidTransport
	case err != nil:
		return ip, ReasonUnsupported
	case req.Src != from || req.Dst != m.cfg.Addr || ip.Src.Addr() != from || ip.Dst != m.cfg.Addr:
		return ip, ReasonInvalidGID
	case m.crowded(from):
		return ip, ReasonNoResources
	}
	return ip, 0
}

// crowded: strangers may not make us remember more.
func (m *Manager) crowded(from netip.Addr) bool {
	if len(m.conns) >= m.cfg.MaxConns || m.halfOpen >= m.cfg.MaxHalfOpen {
		return true
	}
	n := 0
	for _, c := range m.conns {
		if c.peer == from {
			n += c.halfOpenIn(c.state)
		}
	}
	return n >= perSourceHalfOpen
}

// supersede ends a connection whose peer's queue pair asks for a new one: the peer has forgotten the old (12.9.8.3.1).
func (m *Manager) supersede(from netip.Addr, req *REQ) uint16 {
	for _, c := range m.conns {
		if c.guid == req.GUID && c.qpn == req.QPN && c.peer == from {
			m.end(c, Event{Kind: Disconnected})
			return ReasonStale
		}
	}
	return 0
}

func (m *Manager) refuse(now time.Time, to netip.Addr, req *REQ, reason uint16) {
	rej := REJ{IDs: IDs{TID: req.TID, RemoteID: req.LocalID}, Rejected: rejectedREQ, Reason: reason}
	m.reply(now, to, rej.Encode())
}

func (m *Manager) admit(now time.Time, from netip.Addr, req *REQ, ip IPHeader) {
	c := &conn{
		passive: true, peer: from, remoteID: req.LocalID, tid: req.TID, guid: req.GUID, qpn: req.QPN,
		deadline: now.Add(decideTime),
	}
	m.add(c)
	m.enter(c, requested)
	ip.User = append([]byte(nil), ip.User...)
	m.events = append(m.events, Event{Kind: Requested, ID: c.id, REQ: *req, IP: ip})
}

// Answer is what a peer's request is accepted with.
type Answer struct {
	QPN, RecvPSN                       uint32 // of our queue pair, which is ready to receive
	ResponderResources, InitiatorDepth uint8
	RNRRetry                           uint8  // for the peer's sends to us
	Private                            []byte // at most REPPrivateLen bytes
}

// Accept sends a reply. Established, Rejected or TimedOut follows.
func (m *Manager) Accept(now time.Time, id ID, a Answer) {
	c := m.conns[id]
	if c == nil || c.state != requested {
		return
	}
	c.localQPN = a.QPN
	rep := REP{
		IDs: c.ids(), QPN: a.QPN, RecvPSN: a.RecvPSN, GUID: m.cfg.GUID,
		ResponderResources: a.ResponderResources, InitiatorDepth: a.InitiatorDepth,
		AckDelay: ackDelayCode, RNRRetry: a.RNRRetry,
	}
	copy(rep.Private[:], a.Private)
	m.enter(c, repSent)
	m.say(now, c, rep.Encode(), repInterval, repTries)
}

// ackDelayCode is how long an acknowledgement of ours may take: 67 ms, for a process that shares its processor.
const ackDelayCode = 14

// Reject refuses a request.
func (m *Manager) Reject(id ID, reason uint16) {
	c := m.conns[id]
	if c == nil || c.state != requested {
		return
	}
	rej := REJ{IDs: c.ids(), Rejected: rejectedREQ, Reason: reason}
	msg := rej.Encode()
	m.send(c, &msg)
	m.forget(c)
}

// Heard tells that a packet of the peer has come for an accepted connection: that confirms it as an RTU does.
func (m *Manager) Heard(id ID) {
	if c := m.conns[id]; c != nil && c.state == repSent {
		m.confirmed(c)
	}
}

func (m *Manager) handleRTU(c *conn, msg *MAD) {
	if c.state == repSent && c.tid == msg.TID() && c.remoteID == msg.LocalID() {
		m.confirmed(c)
	}
}

func (m *Manager) confirmed(c *conn) {
	m.enter(c, established)
	c.deadline = time.Time{}
	m.events = append(m.events, Event{Kind: Established, ID: c.id})
}

// handleREJ: the peer refuses, or gives up. One that has had no answer of ours names its adapter instead of our
// identifier.
func (m *Manager) handleREJ(from netip.Addr, msg *MAD) {
	rej, err := ParseREJ(msg)
	if err != nil {
		return
	}
	c := m.conns[ID(rej.RemoteID)]
	if c == nil && rej.Reason == ReasonTimeout && len(rej.Info) >= 8 {
		c = m.asked(from, rej.LocalID)
		if c != nil && c.guid != binary.BigEndian.Uint64(rej.Info) {
			return
		}
	}
	if c == nil || !c.rejects(from, &rej) {
		return
	}
	m.end(c, Event{Kind: Rejected, Reason: rej.Reason})
}

// rejects says whether a REJ can be about the connection.
func (c *conn) rejects(from netip.Addr, rej *REJ) bool {
	if c.peer != from || c.tid != rej.TID {
		return false
	}
	switch c.state {
	case reqSent:
		return true
	case requested, repSent, established:
		return c.remoteID == rej.LocalID
	}
	return false
}
