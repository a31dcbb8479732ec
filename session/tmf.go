package session

import (
	"fmt"
	"time"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

// control is one slot for a PDU other than a command that waits for its answer.
type control struct {
	kind       controlKind
	generation uint16
	deadline   time.Time

	function pdu.TMFunction // of a task management function
	lun      scsi.LUN
	ref      pdu.ITT   // the task to abort
	before   pdu.CmdSN // a reset concerns the commands before this one
	done     func(error)
	text     func(data []byte, err error) // of a text request
	answer   []byte                       // its parts so far
}

type controlKind uint8

const (
	controlFree controlKind = iota
	controlPing
	controlTMF
	controlLogout
	controlText
)

const (
	// maxTMF leaves room for a ping, a text request, a logout and the answer to a target's ping.
	maxTMF = ControlSlots - 4
	// abortBudget is how many aborts one connection takes: LIO has 128 receive buffers and loses one with each.
	abortBudget = 32
	// terminationGrace is how long the answers of tasks that a reset has ended may lag behind.
	terminationGrace = time.Second
	// retryPause is when something is tried again for which there was no slot.
	retryPause = 20 * time.Millisecond
)

// claim takes a control slot, nil when there is none for this kind.
func (n *Nexus) claim(kind controlKind) (*control, pdu.ITT) {
	free, same := -1, 0
	for i := range n.controls {
		switch n.controls[i].kind {
		case controlFree:
			free = i
		case kind:
			same++
		}
	}
	if free < 0 || same >= kind.most() {
		return nil, pdu.ReservedITT
	}
	k := &n.controls[free]
	*k = control{kind: kind, generation: k.generation + 1}
	return k, tag(uint16(len(n.tasks)+free), k.generation)
}

// most is how many PDUs of one kind may be unanswered.
func (k controlKind) most() int {
	if k == controlTMF {
		return maxTMF
	}
	return 1
}

func (k *control) release() { *k = control{generation: k.generation} }

// answered finds the request that an answer of the given kind belongs to.
func (n *Nexus) answered(kind controlKind, itt pdu.ITT) (*control, error) {
	i := int(uint16(itt)) - len(n.tasks)
	if i < 0 || i >= len(n.controls) || n.controls[i].kind != kind ||
		n.controls[i].generation != uint16(itt>>generationShift) {
		return nil, fmt.Errorf("%w: tag %#x in an answer to a control PDU", ErrUnknownTask, uint32(itt))
	}
	return &n.controls[i], nil
}

// sendControl queues what was encoded into n.bhs.
func (n *Nexus) sendControl(data []byte) error {
	if err := n.dm.SendControl(&n.bhs, data); err != nil {
		return err
	}
	n.dirty = true
	return nil
}

// TaskManagement asks the target to carry out fn on the logical unit lun (RFC 7143 11.5) and calls done with the
// outcome: nil, a *TMFError, or ErrNexusLost; on the driver's goroutine, possibly before it returns. Commands that a
// reset or a clear has ended complete with ErrAborted shortly after it. An answer that does not come in AbortTimeout
// ends the connection.
func (n *Nexus) TaskManagement(fn pdu.TMFunction, lun scsi.LUN, done func(error)) {
	k, itt := n.claim(controlTMF)
	switch {
	case n.state >= stateLost:
		done(ErrNexusLost)
		return
	case k == nil:
		done(ErrNoSlot)
		return
	}
	k.function, k.lun, k.before, k.done = fn, lun, n.cmdSN, done
	if err := n.sendTMF(k, itt, pdu.ReservedITT, 0); err != nil {
		k.release()
		done(err)
	}
}

func (n *Nexus) sendTMF(k *control, itt, ref pdu.ITT, refCmdSN pdu.CmdSN) error {
	k.ref = ref
	k.deadline = time.Now().Add(n.params.AbortTimeout)
	pdu.TMFRequestFields{
		Immediate: true, Function: k.function, LUN: k.lun, ITT: itt,
		RefTaskTag: ref, RefCmdSN: refCmdSN, CmdSN: n.cmdSN, ExpStatSN: n.expStatSN,
	}.Encode(n.bhs[:])
	return n.sendControl(nil)
}

// abort asks the target to abort c, which is overdue. It reports whether the request is on its way.
func (n *Nexus) abort(c *Command) bool {
	k, itt := n.claim(controlTMF)
	if k == nil {
		return false
	}
	k.function, k.lun = pdu.TMAbortTask, c.LUN
	if err := n.sendTMF(k, itt, c.itt, c.cmdSN); err != nil {
		k.release()
		if err != ErrNoSlot {
			n.lose(err)
		}
		return false
	}
	c.overdue = true
	n.tasks[uint16(c.itt)].aborting = true
	return true
}

func (n *Nexus) handleTMF(r pdu.TMFResponse, data []byte) error {
	if err := r.Validate(len(data)); err != nil {
		return protocolError(err)
	}
	k, err := n.answered(controlTMF, r.ITT())
	if err != nil {
		return err
	}
	if err := n.sequence(pdu.BHS(r)); err != nil {
		return err
	}
	req := *k
	k.release()
	if req.ref != pdu.ReservedITT {
		return n.abortAnswered(req.ref, r.Response())
	}
	n.functionAnswered(&req, r.Response())
	return nil
}

// abortAnswered ends the command that was to be aborted, unless its answer came first.
//
// "Task does not exist" proves nothing about a command that was not answered. LIO says so also of one that its
// backend has completed while the thread that moves the data and answers has not got round to it: a read buffer that
// was given back then would be overwritten later. So the answer gets some more time, and the connection is lost
// without it, unless the target has said before that it ended the task without one.
func (n *Nexus) abortAnswered(ref pdu.ITT, r pdu.TMResponse) error {
	t := &n.tasks[uint16(ref)]
	t.aborting = false
	if t.cmd == nil {
		n.release(uint16(ref))
	}
	c := t.cmd
	switch {
	case r == pdu.TMComplete:
		n.aborts++
	case c == nil:
		return nil
	case r != pdu.TMNoTask:
		return fmt.Errorf("%w: %v", ErrAbortRefused, r)
	case !c.terminated:
		c.disowned, c.deadline = true, time.Now().Add(terminationGrace)
		return nil
	}
	if c != nil {
		c.Err, c.Short = ErrAborted, uint32(len(c.Buf.Mem))
		n.stats.Aborted++
		n.dm.DeallocateTask(ref)
		n.finish(c)
	}
	if n.aborts >= abortBudget {
		return fmt.Errorf("%w: %d", ErrAbortBudget, n.aborts)
	}
	return nil
}

func (n *Nexus) functionAnswered(req *control, r pdu.TMResponse) {
	if r != pdu.TMComplete {
		req.done(&TMFError{Function: req.function, Response: r})
		return
	}
	switch req.function {
	case pdu.TMAbortTaskSet, pdu.TMClearTaskSet, pdu.TMLogicalUnitReset:
		n.hasten(req.lun, true, req.before)
	case pdu.TMTargetWarmReset, pdu.TMTargetColdReset:
		n.hasten(req.lun, false, req.before)
	}
	req.done(nil)
}

// hasten makes the commands before cmdSN (of one unit, or of all) overdue soon: the target has ended them, and they
// get no answer. Their abort then finds no task; what was answered late is still taken.
func (n *Nexus) hasten(lun scsi.LUN, oneUnit bool, before pdu.CmdSN) {
	soon := time.Now().Add(terminationGrace)
	for c := n.sent.head; c != nil; c = c.next {
		if oneUnit && c.LUN != lun || !c.cmdSN.Less(before) {
			continue
		}
		c.terminated = true
		if c.deadline.After(soon) {
			c.deadline = soon
		}
	}
}

// heedReset hastens the commands that were with a unit when somebody else reset it or cleared its task set: the first
// command after that ended with a UNIT ATTENTION, those before it may never be answered (SAM-5 5.14).
func (n *Nexus) heedReset(c *Command) {
	const reset, cleared = 0x29, 0x2f // ASC of "reset occurred", "commands cleared"
	if c.Err != nil || c.Status != scsi.StatusCheckCondition || c.Sense.Key != scsi.KeyUnitAttention {
		return
	}
	if c.Sense.ASC == reset || c.Sense.ASC == cleared {
		n.hasten(c.LUN, true, c.cmdSN)
	}
}
