package cm

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
)

// ErrTooMany: there are as many connections as there may be.
var ErrTooMany = errors.New("too many connections")

// Request says what to ask for. The codes are those of Timeout and MTUCode.
type Request struct {
	Dst                                netip.AddrPort
	SrcPort                            uint16
	QPN, RecvPSN                       uint32 // of our queue pair
	ResponderResources, InitiatorDepth uint8
	RetryCount, RNRRetry               uint8 // for the peer's sends to us
	MTU, AckTimeout                    uint8
	TrafficClass                       uint8
	Private                            []byte // at most UserPrivateLen bytes
}

const (
	defaultPKey = 0xffff
	hopLimit    = 64
)

// Connect sends a request. Replied, Rejected or TimedOut follows.
func (m *Manager) Connect(now time.Time, r Request) (ID, error) {
	if len(m.conns) >= m.cfg.MaxConns {
		return 0, ErrTooMany
	}
	c := &conn{peer: r.Dst.Addr(), tid: m.cfg.Rand(), localQPN: r.QPN}
	m.add(c)
	m.enter(c, reqSent)
	req := REQ{
		TID: c.tid, LocalID: uint32(c.id), ServiceID: ServiceID(r.Dst.Port()), GUID: m.cfg.GUID,
		QPN: r.QPN, RecvPSN: r.RecvPSN,
		ResponderResources: r.ResponderResources, InitiatorDepth: r.InitiatorDepth,
		ResponseTimeout: responseCode, LocalTimeout: responseCode, MaxCMRetries: maxRetries,
		RetryCount: r.RetryCount, RNRRetry: r.RNRRetry, MTU: r.MTU, AckTimeout: r.AckTimeout,
		PKey: defaultPKey, Src: m.cfg.Addr, Dst: r.Dst.Addr(), TrafficClass: r.TrafficClass, HopLimit: hopLimit,
		FlowLabel: uint32(m.cfg.Rand()) & 0xfffff,
	}
	IPHeader{Src: netip.AddrPortFrom(m.cfg.Addr, r.SrcPort), Dst: r.Dst.Addr(), User: r.Private}.Put(&req.Private)
	m.say(now, c, req.Encode(), reqInterval, reqTries)
	return c.id, nil
}

// handleREP: the peer has accepted. One that comes again has lost our RTU.
func (m *Manager) handleREP(c *conn, msg *MAD) {
	if c.passive || c.tid != msg.TID() {
		return
	}
	rep, err := ParseREP(msg)
	if err != nil {
		return
	}
	switch {
	case c.state == established && c.remoteID == rep.LocalID:
		m.send(c, &c.last)
	case c.state == reqSent:
		c.remoteID, c.guid, c.qpn = rep.LocalID, rep.GUID, rep.QPN
		c.deadline = time.Time{} // now it is the driver's turn
		m.enter(c, repReceived)
		m.events = append(m.events, Event{Kind: Replied, ID: c.id, REP: rep})
	}
}

// Confirm tells the peer that our queue pair is ready: an RTU. The connection is established.
func (m *Manager) Confirm(id ID) {
	c := m.conns[id]
	if c == nil || c.state != repReceived {
		return
	}
	m.enter(c, established)
	c.last = c.ids().encode(AttrRTU)
	m.send(c, &c.last)
}

// handleMRA: the answer takes longer.
func (m *Manager) handleMRA(now time.Time, c *conn, msg *MAD) {
	mra := ParseMRA(msg)
	if c.tid != mra.TID || c.state != reqSent && c.state != repSent {
		return
	}
	if until := now.Add(min(Timeout(mra.Timeout), maxMRA)); until.After(c.deadline) {
		c.deadline = until
	}
}

// Refused tells that a host says it has nobody who takes our messages: requests to it have no future. Connections that
// got any answer have proven otherwise.
func (m *Manager) Refused(now time.Time, by netip.Addr) {
	for _, c := range m.conns {
		switch {
		case c.peer != by:
		case c.state == reqSent:
			m.end(c, Event{Kind: Unreachable})
		case c.state == dreqSent:
			c.deadline, c.tries = now, 0
		}
	}
}

// Abandon forgets a connection that is not established, and tells the peer.
func (m *Manager) Abandon(id ID) {
	c := m.conns[id]
	if c == nil {
		return
	}
	rej := REJ{IDs: c.ids(), Rejected: rejectedOther, Reason: ReasonConsumer}
	switch c.state {
	case reqSent: // the peer knows us by our adapter and our identifier alone
		rej.Reason = ReasonTimeout
		rej.Info = binary.BigEndian.AppendUint64(nil, m.cfg.GUID)
	case repReceived:
		rej.Rejected = rejectedREP
	case requested:
		rej.Rejected = rejectedREQ
	}
	msg := rej.Encode()
	m.send(c, &msg)
	m.forget(c)
}
