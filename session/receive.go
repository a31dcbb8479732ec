package session

import (
	"fmt"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

// HandlePDU takes one PDU from the datamover (Control_Notify, RFC 5047 5.2.1). It is called from within Poll only.
// After the first fault nothing that arrives counts any more.
func (n *Nexus) HandlePDU(bhs pdu.BHS, data []byte) {
	n.stats.PDUs++
	if n.pending != nil || n.state >= stateLost {
		return
	}
	if err := n.handle(bhs, data); err != nil && n.pending == nil {
		n.pending = err
	}
}

func (n *Nexus) handle(bhs pdu.BHS, data []byte) error {
	if len(bhs) < pdu.BHSLen {
		return fmt.Errorf("%w: header of %d bytes", ErrProtocol, len(bhs))
	}
	switch bhs.Opcode() {
	case pdu.OpSCSIResponse:
		return n.handleResponse(pdu.SCSIResponse(bhs), data)
	case pdu.OpNOPIn:
		return n.handleNOPIn(pdu.NOPIn(bhs), data)
	case pdu.OpTMFResponse:
		return n.handleTMF(pdu.TMFResponse(bhs), data)
	case pdu.OpLogoutResponse:
		return n.handleLogout(pdu.LogoutResponse(bhs), data)
	case pdu.OpTextResponse:
		return n.handleText(pdu.TextResponse(bhs), data)
	case pdu.OpAsyncMessage:
		return n.handleAsync(pdu.AsyncMessage(bhs), data)
	case pdu.OpReject:
		return n.handleReject(pdu.Reject(bhs), data)
	}
	return fmt.Errorf("%w: %v", ErrUnexpectedPDU, bhs.Opcode())
}

// sequence takes over the counters of a PDU that carries status. Out of order updates of the window are left out
// (RFC 7143 4.2.2.1).
//
// A StatSN need not be the very next one: LIO numbers iSER responses on several CPUs without a lock and in another
// order than it sends them. One may be ahead by as many as there can be answers outstanding, and behind by as many as
// others were answered while the thread that had numbered it did not run.
func (n *Nexus) sequence(p pdu.BHS) error {
	d := p.StatSN().Diff(n.expStatSN)
	if ahead := int32(len(n.tasks) + 2*ControlSlots); d > ahead || d < -maxStatBehind {
		return fmt.Errorf("%w: %d, expected %d", ErrStatSN, p.StatSN(), n.expStatSN)
	}
	if d >= 0 {
		n.expStatSN = p.StatSN() + 1
	}
	n.window(p)
	return nil
}

// maxStatBehind is more answers than a target gives while one of its threads stands still.
const maxStatBehind = 1 << 24

// window opens the command window. A MaxCmdSN behind ExpCmdSN-1 is void, and it never moves back.
func (n *Nexus) window(p pdu.BHS) {
	exp, limit := p.ExpCmdSN(), p.MaxCmdSN()
	if limit.Less(exp - 1) {
		return
	}
	if n.maxCmdSN.Less(limit) {
		n.maxCmdSN = limit
	}
}

// command finds the command that a response answers.
func (n *Nexus) command(itt pdu.ITT) *Command {
	slot := int(uint16(itt))
	if slot >= len(n.tasks) {
		return nil
	}
	c := n.tasks[slot].cmd
	if c == nil || c.itt != itt {
		return nil
	}
	return c
}

func (n *Nexus) handleResponse(r pdu.SCSIResponse, data []byte) error {
	if err := r.Validate(len(data)); err != nil {
		return protocolError(err)
	}
	c := n.command(r.ITT())
	if c == nil {
		return fmt.Errorf("%w: tag %#x in a %v", ErrUnknownTask, uint32(r.ITT()), pdu.BHS(r).Opcode())
	}
	if err := n.sequence(pdu.BHS(r)); err != nil {
		return err
	}
	if err := c.settle(r, data[:r.DataSegmentLength()]); err != nil {
		return err
	}
	n.stats.Completed++
	n.heedReset(c)
	n.finish(c)
	return nil
}

// settle writes the result of c, or finds what is wrong with the response; then c is as it was.
func (c *Command) settle(r pdu.SCSIResponse, data []byte) error {
	edtl := uint32(len(c.Buf.Mem))
	moved, err := r.Transferred(edtl)
	if err != nil || r.BidiOverflow() || r.BidiUnderflow() {
		return fmt.Errorf("%w: flags %#02x, %d bytes of %d", ErrResidual, r[1], r.Residual(), edtl)
	}
	switch r.Response() {
	case pdu.ResponseCompleted:
	case pdu.ResponseTargetFailure:
		c.Err, c.Short = ErrTargetFailure, edtl
		return nil
	default:
		return fmt.Errorf("%w: scsi response with %v", ErrProtocol, r.Response())
	}
	if err := c.setSense(r.Status(), data); err != nil {
		return err
	}
	c.Status, c.Short = r.Status(), edtl-moved
	if r.Overflow() && c.Status == scsi.StatusGood {
		c.Err = ErrOverflow
	}
	return nil
}

// setSense reads the sense data of a CHECK CONDITION. A target may leave it out.
func (c *Command) setSense(s scsi.Status, data []byte) error {
	if s != scsi.StatusCheckCondition {
		return nil
	}
	raw, err := pdu.SenseData(data)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSense, err)
	}
	if raw == nil {
		return nil
	}
	if c.Sense, err = scsi.ParseSense(raw); err != nil {
		return fmt.Errorf("%w: %w", ErrSense, err)
	}
	return nil
}

func (n *Nexus) handleReject(r pdu.Reject, data []byte) error {
	if err := r.Validate(len(data)); err != nil {
		return protocolError(err)
	}
	what := "an unknown PDU"
	if h, err := r.Rejected(data); err == nil {
		what = h.Opcode().String()
	}
	return fmt.Errorf("%w: %s: %v", ErrRejected, what, r.Reason())
}

func (n *Nexus) handleAsync(m pdu.AsyncMessage, data []byte) error {
	if err := m.Validate(len(data)); err != nil {
		return protocolError(err)
	}
	if err := n.sequence(pdu.BHS(m)); err != nil {
		return err
	}
	switch m.Event() {
	case pdu.AsyncLogoutRequest, pdu.AsyncNegotiationRequest:
		// A new login negotiates anew, which is all that the second one wants.
		n.leave(ErrLogoutRequested, nil)
	case pdu.AsyncConnectionDrop, pdu.AsyncSessionDrop:
		return fmt.Errorf("%w: %v", ErrDropped, m.Event())
	case pdu.AsyncTaskTermination:
		n.hasten(m.LUN(), true, n.cmdSN)
	}
	// SCSI events repeat what a UNIT ATTENTION will say; vendor events mean nothing to us.
	return nil
}
