package isertarget

import (
	"slices"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

// sessionKey names an I_T nexus (RFC 7143 4.4.1).
type sessionKey struct {
	initiator string
	isid      pdu.ISID
	group     uint16
}

// session is one I_T nexus: one connection. Its fields are guarded by Target.mu.
type session struct {
	key       sessionKey
	tsih      pdu.TSIH
	conn      *Conn
	discovery bool

	expCmdSN   pdu.CmdSN
	maxCmdSN   pdu.CmdSN
	tasks      map[pdu.ITT]*task
	attentions map[int][]scsi.Sense
}

// attention queues one. Target.mu is held.
func (s *session) attention(lun int, sense scsi.Sense) {
	s.attentions[lun] = append(s.attentions[lun], sense)
}

// takeAttention takes the oldest one of a unit.
func (t *Target) takeAttention(s *session, lun int) (scsi.Sense, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := s.attentions[lun]
	if len(q) == 0 {
		return scsi.Sense{}, false
	}
	s.attentions[lun] = q[1:]
	return q[0], true
}

// window moves MaxCmdSN as far as the free places allow; it never moves back. Target.mu is held.
func (s *session) window(size int) {
	if n := s.expCmdSN.Add(uint32(size-len(s.tasks)) - 1); s.maxCmdSN.Less(n) {
		s.maxCmdSN = n
	}
}

// open makes the session that a login has asked for, after the one it replaces is gone (RFC 7143 6.3.5).
func (t *Target) open(c *Conn, key sessionKey, discovery bool, cmdSN pdu.CmdSN) *session {
	s := &session{
		key: key, conn: c, discovery: discovery, expCmdSN: cmdSN, maxCmdSN: cmdSN.Add(^uint32(0)),
		tasks: make(map[pdu.ITT]*task), attentions: make(map[int][]scsi.Sense),
	}
	if old := t.replace(s); old != nil {
		old.conn.Close()
		if !t.opt.EarlyReinstatement {
			t.waitTasks(old)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c.sess = s
	c.hire()
	s.window(t.opt.Window)
	if t.opt.PowerOnAttention {
		for n := range t.disks {
			s.attention(n, scsi.Sense{Key: scsi.KeyUnitAttention, ASC: 0x29})
		}
	}
	return s
}

func (t *Target) replace(s *session) (old *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tsih++
	s.tsih = t.tsih
	if s.discovery {
		return nil
	}
	old = t.sessions[s.key]
	t.sessions[s.key] = s
	t.replaced = slices.DeleteFunc(t.replaced, func(r *session) bool { return len(r.tasks) == 0 })
	if old != nil {
		t.replaced = append(t.replaced, old)
	}
	return old
}

// waitTasks waits until every command of a dead session has ended, or the target has.
func (t *Target) waitTasks(s *session) {
	t.mu.Lock()
	var left []*task
	for _, k := range s.tasks {
		left = append(left, k)
	}
	t.mu.Unlock()
	for _, k := range left {
		select {
		case <-k.done:
		case <-t.ctx.Done():
			return
		}
	}
}

// forget ends a session whose connection has ended. While commands of it still run it can be found, so that a login
// in its place waits for them.
func (t *Target) forget(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c.id)
	if s := c.sess; s != nil && t.sessions[s.key] == s && len(s.tasks) == 0 {
		delete(t.sessions, s.key)
	}
}

// Sessions is how many full-feature sessions, discovery aside, have a connection.
func (t *Target) Sessions() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, s := range t.sessions {
		if t.conns[s.conn.id] != nil {
			n++
		}
	}
	return n
}
