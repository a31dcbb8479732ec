package isertarget

import (
	"maps"
	"slices"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

// taskManagement carries out a task management function (RFC 7143 11.5).
func (c *Conn) taskManagement(p pdu.TMFRequest) bool {
	f := Function{Conn: c.id, Function: p.Function(), LUN: p.LUN(), RefTag: p.RefTaskTag()}
	c.t.record(Record{Op: pdu.OpTMFRequest, Conn: c.id, Task: f})
	var a TaskAction
	if hook := c.t.currentHooks().TaskManagement; hook != nil {
		a = hook(f)
	}
	if a.Hold != nil {
		tag := p.ITT()
		c.t.wg.Go(func() { c.heldFunction(f, a, tag) })
		return true
	}
	c.manage(f, a, p.ITT())
	return true
}

func (c *Conn) heldFunction(f Function, a TaskAction, tag pdu.ITT) {
	select {
	case <-a.Hold:
		c.manage(f, a, tag)
	case <-c.t.ctx.Done():
	}
}

func (c *Conn) manage(f Function, a TaskAction, tag pdu.ITT) {
	if a.Ignore {
		return
	}
	response := a.Response
	if !a.Refuse {
		response = c.t.manage(c.sess, f)
	}
	c.reply(true, nil, func(dst []byte, n counters) {
		pdu.TMFResponseFields{
			Response: response, ITT: tag, StatSN: n.stat, ExpCmdSN: n.exp, MaxCmdSN: n.max,
		}.Encode(dst)
	})
}

func (t *Target) manage(s *session, f Function) pdu.TMResponse {
	switch f.Function {
	case pdu.TMAbortTask:
		if t.abort(func(k *task) bool { return k.sess == s && k.cmd.ITT == f.RefTag }) == 0 {
			return pdu.TMNoTask
		}
	case pdu.TMAbortTaskSet, pdu.TMClearTaskSet:
		t.abort(func(k *task) bool { return k.sess == s && k.cmd.LUN == f.LUN })
	case pdu.TMLogicalUnitReset:
		return t.resetUnit(s, f.LUN)
	default:
		return pdu.TMFunctionNotSupported
	}
	return pdu.TMComplete
}

// resetUnit ends every command of a unit and tells the other sessions.
func (t *Target) resetUnit(s *session, l scsi.LUN) pdu.TMResponse {
	d := t.disk(l)
	if d == nil {
		return pdu.TMNoLUN
	}
	t.abort(func(k *task) bool { return k.cmd.LUN == l })
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, other := range t.sessions {
		if other != s {
			other.attention(d.Number, scsi.Sense{Key: scsi.KeyUnitAttention, ASC: 0x29, ASCQ: 0x03})
		}
	}
	return pdu.TMComplete
}

// abort ends matching commands without an answer, waits for those that run, and returns how many there were.
func (t *Target) abort(match func(*task) bool) int {
	n := 0
	for _, k := range t.marked(match) {
		n++
		if !k.running {
			k.finish()
		}
		<-k.done
	}
	for _, k := range t.takeParked(match) {
		k.finish()
	}
	return n
}

// marked are the matching commands, none of which begins to run any more.
func (t *Target) marked(match func(*task) bool) []*task {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*task
	for _, s := range slices.AppendSeq(slices.Clone(t.replaced), maps.Values(t.sessions)) {
		for _, k := range s.tasks {
			if match(k) {
				k.aborted = true
				list = append(list, k)
			}
		}
	}
	return list
}
