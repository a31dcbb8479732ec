package isertarget

import (
	"strconv"

	"iserblk/session/pdu"
)

// nop answers a ping, or takes the answer to one.
func (c *Conn) nop(p pdu.NOPOut, data []byte) bool {
	c.t.record(Record{Op: pdu.OpNOPOut, Conn: c.id})
	if p.ITT() == pdu.ReservedITT {
		c.t.mu.Lock()
		c.t.pongs++
		c.t.mu.Unlock()
		return true
	}
	if p.TTT() != pdu.ReservedTTT {
		c.t.violate("nop-out with both tags")
	}
	c.reply(true, data, func(dst []byte, n counters) {
		pdu.NOPInFields{
			DataLen: len(data), ITT: p.ITT(), TTT: pdu.ReservedTTT,
			StatSN: n.stat, ExpCmdSN: n.exp, MaxCmdSN: n.max,
		}.Encode(dst)
	})
	return true
}

// Ping sends a NOP-In on every connection. With answer it asks for a NOP-Out, as SCST does; without, it only shows that
// the target lives, as tgt does.
func (t *Target) Ping(answer bool) {
	ttt := pdu.ReservedTTT
	if answer {
		ttt = 1
	}
	for _, c := range t.Conns() {
		c.reply(false, nil, func(dst []byte, n counters) {
			pdu.NOPInFields{
				ITT: pdu.ReservedITT, TTT: ttt, StatSN: n.stat, ExpCmdSN: n.exp, MaxCmdSN: n.max,
			}.Encode(dst)
		})
	}
}

// Pongs is how many pings of the target were answered.
func (t *Target) Pongs() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pongs
}

// Async sends an Async Message on every connection (RFC 7143 11.9).
func (t *Target) Async(event pdu.AsyncEvent, p1, p2, p3 uint16) {
	for _, c := range t.Conns() {
		c.reply(true, nil, func(dst []byte, n counters) {
			pdu.AsyncMessageFields{
				StatSN: n.stat, ExpCmdSN: n.exp, MaxCmdSN: n.max,
				Event: event, Parameter1: p1, Parameter2: p2, Parameter3: p3,
			}.Encode(dst)
		})
	}
}

// logout answers and ends the connection (RFC 7143 11.14).
func (c *Conn) logout(p pdu.LogoutRequest) bool {
	c.t.record(Record{Op: pdu.OpLogoutRequest, Conn: c.id})
	c.reply(true, nil, func(dst []byte, n counters) {
		pdu.LogoutResponseFields{
			Response: pdu.LogoutClosed, ITT: p.ITT(), StatSN: n.stat, ExpCmdSN: n.exp, MaxCmdSN: n.max,
		}.Encode(dst)
	})
	return false
}

// text answers SendTargets; nothing else is negotiated after login.
func (c *Conn) text(p pdu.TextRequest, data []byte) bool {
	c.t.record(Record{Op: pdu.OpTextRequest, Conn: c.id})
	keys, err := pdu.ParseText(data)
	if err != nil {
		c.t.violate("text request: %v", err)
		return false
	}
	var answer []byte
	if which, ok := keys.Get("SendTargets"); ok {
		answer = c.t.appendTargets(nil, which)
	}
	c.reply(true, answer, func(dst []byte, n counters) {
		pdu.TextResponseFields{
			Final: true, DataLen: len(answer), ITT: p.ITT(), TTT: pdu.ReservedTTT,
			StatSN: n.stat, ExpCmdSN: n.exp, MaxCmdSN: n.max,
		}.Encode(dst)
	})
	return true
}

// appendTargets lists the target with all its portals, unless another one was asked for.
func (t *Target) appendTargets(b []byte, which string) []byte {
	if which != "All" && which != "" && which != t.opt.Name {
		return b
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	b = pdu.AppendKey(b, "TargetName", t.opt.Name)
	for _, p := range t.portals {
		b = pdu.AppendKey(b, "TargetAddress", p.Addr().String()+","+strconv.Itoa(int(p.group)))
	}
	return b
}
