package session

import (
	"encoding/binary"
	"errors"
	"testing"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

func TestAResponseSaysWhatBecameOfTheCommand(t *testing.T) {
	sense := scsi.Sense{Key: scsi.KeyMediumError, ASC: 0x11, Info: 77, InfoValid: true}
	for _, c := range []struct {
		name   string
		dir    Direction
		fields pdu.SCSIResponseFields
		data   []byte
		want   Command
	}{
		{"underflow", In, pdu.SCSIResponseFields{Underflow: true, Residual: 512}, nil, Command{Short: 512}},
		{"underflow of everything", In, pdu.SCSIResponseFields{Underflow: true, Residual: 4096}, nil, Command{Short: 4096}},
		{"underflow of nothing", In, pdu.SCSIResponseFields{Underflow: true}, nil, Command{}},
		{"no data and an empty underflow", NoData, pdu.SCSIResponseFields{Underflow: true}, nil, Command{}},
		{"residual without a flag", In, pdu.SCSIResponseFields{Residual: 9999}, nil, Command{}},
		{"overflow", In, pdu.SCSIResponseFields{Overflow: true, Residual: 9999}, nil, Command{Err: ErrOverflow}},
		{
			"target failure", Out,
			pdu.SCSIResponseFields{Response: pdu.ResponseTargetFailure},
			nil,
			Command{Err: ErrTargetFailure, Short: 4096},
		},
		{
			"busy", Out,
			pdu.SCSIResponseFields{Status: scsi.StatusBusy, Underflow: true, Residual: 4096},
			nil,
			Command{Status: scsi.StatusBusy, Short: 4096},
		},
		{
			"fixed sense", In,
			pdu.SCSIResponseFields{Status: scsi.StatusCheckCondition},
			pdu.AppendSenseData(nil, scsi.AppendFixedSense(nil, sense)),
			Command{Status: scsi.StatusCheckCondition, Sense: sense},
		},
		{
			"descriptor sense", In,
			pdu.SCSIResponseFields{Status: scsi.StatusCheckCondition},
			pdu.AppendSenseData(nil, scsi.AppendDescriptorSense(nil, sense)),
			Command{Status: scsi.StatusCheckCondition, Sense: sense},
		},
		{
			"252 bytes of sense", In,
			pdu.SCSIResponseFields{Status: scsi.StatusCheckCondition},
			pdu.AppendSenseData(nil, append(scsi.AppendFixedSense(nil, sense), make([]byte, 252-18)...)),
			Command{Status: scsi.StatusCheckCondition, Sense: sense},
		},
		{"no sense", In, pdu.SCSIResponseFields{Status: scsi.StatusCheckCondition}, nil, Command{Status: scsi.StatusCheckCondition}},
		{
			"check condition with overflow", In,
			pdu.SCSIResponseFields{Status: scsi.StatusCheckCondition, Overflow: true, Residual: 1},
			nil,
			Command{Status: scsi.StatusCheckCondition},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			j := newJob(c.dir, 4096)
			c.fields.ITT = r.start(j).itt()
			r.respond(c.fields, c.data...)
			r.turn()
			if j.ends != 1 || len(r.lost) > 0 {
				t.Fatalf("ended %d times, lost %v", j.ends, r.lost)
			}
			if j.Err != c.want.Err || j.Status != c.want.Status || j.Short != c.want.Short || j.Sense != c.want.Sense {
				t.Errorf("%v %v %v, %d short", j.Err, j.Status, j.Sense, j.Short)
			}
		})
	}
}

func TestPaddingBehindTheSenseDoesNotCount(t *testing.T) {
	r := newRig(t, nil)
	j := newJob(In, 512)
	itt := r.start(j).itt()
	data := pdu.AppendSenseData(nil, scsi.AppendFixedSense(nil, scsi.Sense{Key: scsi.KeyNotReady, ASC: 4}))
	f := pdu.SCSIResponseFields{
		ITT: itt, Status: scsi.StatusCheckCondition, StatSN: r.nextStat(), ExpCmdSN: r.n.cmdSN, MaxCmdSN: r.max, DataLen: len(data),
	}
	r.dm.deliver(f, append(data, 0xff, 0xff, 0xff)...)
	r.turn()
	if j.ends != 1 || j.Sense.Key != scsi.KeyNotReady || len(r.lost) > 0 {
		t.Errorf("ended %d times, %v, lost %v", j.ends, j.Sense, r.lost)
	}
}

// hostile is a PDU that no target may send.
type hostile struct {
	name string
	want error
	send func(r *rig, itt pdu.ITT)
}

// raw delivers f as change leaves it.
func raw(r *rig, f interface{ Encode([]byte) }, data []byte, change func(b []byte)) {
	r.dm.deliver(f, data...)
	if change != nil {
		change(r.dm.inbox[len(r.dm.inbox)-1].bhs[:])
	}
}

func (r *rig) fields(itt pdu.ITT) pdu.SCSIResponseFields {
	return pdu.SCSIResponseFields{ITT: itt, StatSN: r.statSN, ExpCmdSN: r.n.cmdSN, MaxCmdSN: r.max}
}

func withSense(f pdu.SCSIResponseFields, n int) pdu.SCSIResponseFields {
	f.Status, f.DataLen = scsi.StatusCheckCondition, n
	return f
}

func opcode(op pdu.Opcode) func([]byte) { return func(b []byte) { b[0] = byte(op) } }

var hostiles = []hostile{
	{"a truncated header", ErrProtocol, func(r *rig, itt pdu.ITT) {
		r.n.pending = r.n.handle(make(pdu.BHS, 20), nil)
		r.dm.deliver(r.fields(itt))
	}},
	{"more data than arrived", ErrProtocol, func(r *rig, itt pdu.ITT) { raw(r, withSense(r.fields(itt), 20), make([]byte, 10), nil) }},
	{"less data than arrived", ErrProtocol, func(r *rig, itt pdu.ITT) { raw(r, withSense(r.fields(itt), 20), make([]byte, 30), nil) }},
	{"additional header segments", ErrProtocol, func(r *rig, itt pdu.ITT) {
		raw(r, r.fields(itt), nil, func(b []byte) { b[4] = 1 })
	}},
	{"a tag that was never used", ErrUnknownTask, func(r *rig, itt pdu.ITT) { raw(r, r.fields(itt+1), nil, nil) }},
	{"a slot that does not exist", ErrUnknownTask, func(r *rig, _ pdu.ITT) { raw(r, r.fields(0x1234), nil, nil) }},
	{"the tag of a control slot", ErrUnknownTask, func(r *rig, _ pdu.ITT) { raw(r, r.fields(8), nil, nil) }},
	{"an old generation", ErrUnknownTask, func(r *rig, itt pdu.ITT) { raw(r, r.fields(itt-1<<16), nil, nil) }},
	{"a generation to come", ErrUnknownTask, func(r *rig, itt pdu.ITT) { raw(r, r.fields(itt+1<<16), nil, nil) }},
	{"the reserved tag", ErrProtocol, func(r *rig, _ pdu.ITT) { raw(r, r.fields(pdu.ReservedITT), nil, nil) }},
	{"a StatSN far ahead", ErrStatSN, func(r *rig, itt pdu.ITT) {
		f := r.fields(itt)
		f.StatSN += 1000
		raw(r, f, nil, nil)
	}},
	{"a StatSN far behind", ErrStatSN, func(r *rig, itt pdu.ITT) {
		f := r.fields(itt)
		f.StatSN -= maxStatBehind + 1
		raw(r, f, nil, nil)
	}},
	{"a StatSN half way round", ErrStatSN, func(r *rig, itt pdu.ITT) {
		f := r.fields(itt)
		f.StatSN += 1 << 31
		raw(r, f, nil, nil)
	}},
	{"an unknown response code", ErrProtocol, func(r *rig, itt pdu.ITT) {
		f := r.fields(itt)
		f.Response = 0x80
		raw(r, f, nil, nil)
	}},
	{"a residual above the length", ErrResidual, func(r *rig, itt pdu.ITT) {
		f := r.fields(itt)
		f.Underflow, f.Residual = true, 4097
		raw(r, f, nil, nil)
	}},
	{"overflow and underflow", ErrProtocol, func(r *rig, itt pdu.ITT) {
		f := r.fields(itt)
		f.Underflow, f.Overflow = true, true
		raw(r, f, nil, nil)
	}},
	{"a bidirectional residual", ErrResidual, func(r *rig, itt pdu.ITT) {
		f := r.fields(itt)
		f.BidiUnderflow, f.BidiResidual = true, 1
		raw(r, f, nil, nil)
	}},
	{"a sense length beyond the data", ErrSense, func(r *rig, itt pdu.ITT) {
		raw(r, withSense(r.fields(itt), 20), binary.BigEndian.AppendUint16(nil, 19)[:2:2], nil)
		in := &r.dm.inbox[len(r.dm.inbox)-1]
		in.data = append(in.data, make([]byte, 18)...)
	}},
	{"no room for a sense length", ErrSense, func(r *rig, itt pdu.ITT) { raw(r, withSense(r.fields(itt), 1), []byte{0}, nil) }},
	{"sense of an unknown format", ErrSense, func(r *rig, itt pdu.ITT) {
		d := pdu.AppendSenseData(nil, append([]byte{0x11}, make([]byte, 17)...))
		raw(r, withSense(r.fields(itt), len(d)), d, nil)
	}},
	{"sense cut short", ErrSense, func(r *rig, itt pdu.ITT) {
		d := pdu.AppendSenseData(nil, []byte{0x70, 0, 2})
		raw(r, withSense(r.fields(itt), len(d)), d, nil)
	}},
	{"an R2T", ErrUnexpectedPDU, func(r *rig, itt pdu.ITT) { raw(r, r.fields(itt), nil, opcode(pdu.OpR2T)) }},
	{"a Data-In", ErrUnexpectedPDU, func(r *rig, itt pdu.ITT) { raw(r, r.fields(itt), nil, opcode(pdu.OpDataIn)) }},
	{"a login response", ErrUnexpectedPDU, func(r *rig, itt pdu.ITT) { raw(r, r.fields(itt), nil, opcode(pdu.OpLoginResponse)) }},
	{"an initiator's PDU", ErrUnexpectedPDU, func(r *rig, itt pdu.ITT) { raw(r, r.fields(itt), nil, opcode(pdu.OpNOPOut)) }},
	{"an unknown opcode", ErrUnexpectedPDU, func(r *rig, itt pdu.ITT) { raw(r, r.fields(itt), nil, opcode(0x2f)) }},
	{"a vendor opcode", ErrUnexpectedPDU, func(r *rig, itt pdu.ITT) { raw(r, r.fields(itt), nil, opcode(0x3e)) }},
	{"a reject", ErrRejected, func(r *rig, itt pdu.ITT) {
		h := make([]byte, pdu.BHSLen)
		pdu.SCSICommandFields{ITT: itt}.Encode(h)
		raw(r, pdu.RejectFields{Reason: pdu.RejectProtocolError, DataLen: len(h), StatSN: r.statSN}, h, nil)
	}},
	{"a reject of nothing", ErrRejected, func(r *rig, _ pdu.ITT) { raw(r, pdu.RejectFields{StatSN: r.statSN}, nil, nil) }},
	{"a NOP-In for no ping", ErrUnknownTask, func(r *rig, itt pdu.ITT) {
		raw(r, pdu.NOPInFields{ITT: itt, TTT: pdu.ReservedTTT, StatSN: r.statSN}, nil, nil)
	}},
	{"a NOP-In that answers and asks", ErrProtocol, func(r *rig, itt pdu.ITT) {
		raw(r, pdu.NOPInFields{ITT: itt, TTT: 5, StatSN: r.statSN}, nil, nil)
	}},
	{"two pings at once", ErrPingFlood, func(r *rig, _ pdu.ITT) {
		for range 2 {
			raw(r, pdu.NOPInFields{ITT: pdu.ReservedITT, TTT: 5, StatSN: r.statSN}, nil, nil)
		}
	}},
	{"a TMF response for no request", ErrUnknownTask, func(r *rig, itt pdu.ITT) {
		raw(r, pdu.TMFResponseFields{ITT: itt, StatSN: r.statSN}, nil, nil)
	}},
	{"a logout response for no request", ErrUnknownTask, func(r *rig, itt pdu.ITT) {
		raw(r, pdu.LogoutResponseFields{ITT: itt, StatSN: r.statSN}, nil, nil)
	}},
	{"a text response for no request", ErrUnknownTask, func(r *rig, itt pdu.ITT) {
		raw(r, pdu.TextResponseFields{Final: true, TTT: pdu.ReservedTTT, ITT: itt, StatSN: r.statSN}, nil, nil)
	}},
	{"an async message for a task", ErrProtocol, func(r *rig, itt pdu.ITT) {
		raw(r, pdu.AsyncMessageFields{StatSN: r.statSN}, nil, func(b []byte) { pdu.BHS(b).SetITT(itt) })
	}},
	{"the end of the connection announced", ErrDropped, func(r *rig, _ pdu.ITT) {
		raw(r, pdu.AsyncMessageFields{StatSN: r.statSN, Event: pdu.AsyncConnectionDrop}, nil, nil)
	}},
	{"the end of the session announced", ErrDropped, func(r *rig, _ pdu.ITT) {
		raw(r, pdu.AsyncMessageFields{StatSN: r.statSN, Event: pdu.AsyncSessionDrop}, nil, nil)
	}},
}

func TestAHostileTargetLosesItsConnectionAndCompletesNothing(t *testing.T) {
	for _, h := range hostiles {
		t.Run(h.name, func(t *testing.T) {
			r := newRig(t, nil)
			first := newJob(In, 4096) // so that slot and generation have a history
			r.good(r.start(first).itt())
			r.turn()
			j := newJob(In, 4096)
			itt := r.start(j).itt()
			h.send(r, itt)
			r.dm.deliver(r.fields(itt)) // a good answer behind it comes too late
			r.turn()
			r.mustBeLost(h.want)
			if j.ends != 0 {
				t.Fatalf("ended before the connection was drained: %v", j.Err)
			}
			r.dm.drained = true
			r.turn()
			if j.ends != 1 || j.Err != ErrNexusLost || !j.Sent {
				t.Errorf("ended %d times: %v", j.ends, j.Err)
			}
		})
	}
}

func TestAnAnswerThatComesTwiceLosesTheConnection(t *testing.T) {
	r := newRig(t, nil)
	j := newJob(In, 4096)
	itt := r.start(j).itt()
	r.good(itt)
	r.good(itt)
	r.turn()
	r.mustBeLost(ErrUnknownTask)
	if j.ends != 1 || j.Err != nil {
		t.Errorf("ended %d times: %v", j.ends, j.Err)
	}
}

func TestStatusNumbersMayOvertakeEachOther(t *testing.T) {
	r := newRig(t, nil)
	var tags []pdu.ITT
	for range 4 {
		tags = append(tags, r.start(newJob(NoData, 0)).itt())
	}
	for i, d := range []pdu.StatSN{2, 0, 1, 1} { // LIO numbers without a lock: one may even come twice
		r.dm.deliver(pdu.SCSIResponseFields{ITT: tags[i], StatSN: rigStatSN + d, ExpCmdSN: r.n.cmdSN, MaxCmdSN: r.max})
	}
	r.turn()
	if len(r.lost) > 0 || r.n.Stats().Completed != 4 {
		t.Fatalf("lost %v, %d completed", r.lost, r.n.Stats().Completed)
	}
	if m := r.start(newJob(NoData, 0)); pdu.SCSICommand(m.bhs[:]).ExpStatSN() != rigStatSN+3 {
		t.Errorf("ExpStatSN %d", pdu.SCSICommand(m.bhs[:]).ExpStatSN())
	}
}

func TestAnAnswerMayBeOvertakenByAnyNumberOfOthers(t *testing.T) {
	r := newRig(t, nil)
	r.n.maxCmdSN = rigCmdSN + 10000
	slow := newJob(NoData, 0)
	itt, number := r.start(slow).itt(), r.nextStat()
	for range 5000 {
		r.good(r.start(newJob(NoData, 0)).itt())
		r.turn()
	}
	r.dm.deliver(pdu.SCSIResponseFields{ITT: itt, StatSN: number, ExpCmdSN: r.n.cmdSN, MaxCmdSN: r.max})
	r.turn()
	if slow.ends != 1 || slow.Err != nil || len(r.lost) > 0 || r.n.expStatSN != r.statSN {
		t.Errorf("ended %d times: %v, lost %v, ExpStatSN %d, want %d", slow.ends, slow.Err, r.lost, r.n.expStatSN, r.statSN)
	}
}

func TestHarmlessAsyncMessagesAreTakenNoteOf(t *testing.T) {
	for _, e := range []pdu.AsyncEvent{pdu.AsyncSCSI, pdu.AsyncVendor, 0x77} {
		r := newRig(t, nil)
		r.dm.deliver(pdu.AsyncMessageFields{StatSN: r.nextStat(), Event: e})
		r.turn()
		if len(r.lost) > 0 || r.n.expStatSN != rigStatSN+1 {
			t.Errorf("%v: lost %v, ExpStatSN %d", e, r.lost, r.n.expStatSN)
		}
	}
}

func FuzzNoPDUCompletesACommandTwiceOrPanics(f *testing.F) {
	var h [pdu.BHSLen]byte
	pdu.SCSIResponseFields{ITT: 7, StatSN: rigStatSN}.Encode(h[:])
	f.Add(h[:], []byte{})
	for _, op := range []pdu.Opcode{pdu.OpNOPIn, pdu.OpTMFResponse, pdu.OpTextResponse, pdu.OpAsyncMessage, pdu.OpReject} {
		h[0] = byte(op)
		f.Add(h[:], []byte{0, 2, 0x70, 0})
	}
	f.Fuzz(func(t *testing.T, bhs, data []byte) {
		r := newRig(t, nil)
		j := newJob(In, 4096)
		r.start(j)
		r.n.inPoll = true
		r.n.HandlePDU(bhs, data)
		r.n.HandlePDU(bhs, data)
		r.n.inPoll = false
		r.turn()
		if r.n.Cause() == nil {
			r.n.ConnectionLost(errors.New("end of test"))
		}
		r.dm.drained = true
		r.turn()
		if j.ends != 1 {
			t.Fatalf("ended %d times", j.ends)
		}
	})
}
