package cm

import (
	"net/netip"
	"time"
)

// Handle takes what came to QP 1 from an address. What is malformed or about no connection is dropped.
func (m *Manager) Handle(now time.Time, from netip.Addr, datagram []byte) {
	msg, err := ParseMAD(datagram)
	if err != nil {
		return
	}
	switch msg.Attr() {
	case AttrREQ:
		m.handleREQ(now, from, &msg)
		return
	case AttrREJ:
		m.handleREJ(from, &msg)
		return
	}
	c := m.conns[ID(msg.RemoteID())]
	if c == nil || c.peer != from {
		m.handleStranger(now, from, &msg)
		return
	}
	m.dispatch(now, c, &msg)
}

func (m *Manager) dispatch(now time.Time, c *conn, msg *MAD) {
	switch msg.Attr() {
	case AttrREP:
		m.handleREP(c, msg)
	case AttrRTU:
		m.handleRTU(c, msg)
	case AttrMRA:
		m.handleMRA(now, c, msg)
	case AttrDREQ:
		m.handleDREQ(c, msg)
	case AttrDREP:
		m.handleDREP(c, msg)
	}
}

// handleStranger answers a DREQ for a connection that is forgotten here, so that the peer may forget it, too.
func (m *Manager) handleStranger(now time.Time, from netip.Addr, msg *MAD) {
	if msg.Attr() == AttrDREQ {
		m.reply(now, from, answerTo(msg).encode(AttrDREP))
	}
}

// answerTo swaps the identifiers of a message.
func answerTo(msg *MAD) IDs {
	return IDs{TID: msg.TID(), LocalID: msg.RemoteID(), RemoteID: msg.LocalID()}
}

// Disconnect ends an established connection: a DREQ. Closed follows. A connection that is not established is abandoned.
func (m *Manager) Disconnect(now time.Time, id ID) {
	c := m.conns[id]
	switch {
	case c == nil || c.state == dreqSent:
		return
	case c.state != established && c.state != repSent:
		m.Abandon(id)
		m.events = append(m.events, Event{Kind: Closed, ID: id})
		return
	}
	c.tid = m.cfg.Rand()
	dreq := DREQ{IDs: c.ids(), QPN: c.qpn}
	m.enter(c, dreqSent)
	m.say(now, c, dreq.Encode(), dreqInterval, dreqTries)
}

// handleDREQ: the peer ends the connection. A peer whose RTU was lost may do it before we count it as established, and
// both ends may do it at once.
func (m *Manager) handleDREQ(c *conn, msg *MAD) {
	dreq := ParseDREQ(msg)
	if c.remoteID != dreq.LocalID || c.localQPN != dreq.QPN {
		return
	}
	kind := Disconnected
	switch c.state {
	case dreqSent:
		kind = Closed
	case repSent, established:
	default:
		return
	}
	answer := answerTo(msg).encode(AttrDREP)
	m.send(c, &answer)
	m.end(c, Event{Kind: kind})
}

func (m *Manager) handleDREP(c *conn, msg *MAD) {
	if c.state == dreqSent && c.tid == msg.TID() && c.remoteID == msg.LocalID() {
		m.end(c, Event{Kind: Closed})
	}
}
