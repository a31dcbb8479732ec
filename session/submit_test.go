package session

import (
	"errors"
	"testing"
	"time"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

func TestACommandIsSentAndAnswered(t *testing.T) {
	r := newRig(t, nil)
	j := newJob(In, 4096)
	j.LUN = scsi.LUN{0, 3}
	m := r.start(j)
	c := pdu.SCSICommand(m.bhs[:])
	if err := c.Validate(0); err != nil {
		t.Fatal(err)
	}
	if !c.Final() || !c.Read() || c.Write() || c.Immediate() || c.Attr() != pdu.AttrSimple || c.EDTL() != 4096 ||
		c.LUN() != j.LUN || c.CmdSN() != rigCmdSN || c.ExpStatSN() != rigStatSN || *c.CDB() != j.CDB {
		t.Errorf("header % x", m.bhs)
	}
	if m.dir != In || &m.buf.Mem[0] != &j.Buf.Mem[0] || m.buf.Region != 7 || m.immediate != 0 {
		t.Errorf("buffer %v %v", m.dir, m.buf.Region)
	}
	if !r.n.Busy() || j.ends != 0 {
		t.Error("not busy, or ended too soon")
	}
	r.good(c.ITT())
	r.turn()
	if j.ends != 1 || j.Err != nil || j.Status != scsi.StatusGood || j.Short != 0 || !j.Sent || r.n.Busy() {
		t.Errorf("ended %d times: %v %v, %d short", j.ends, j.Err, j.Status, j.Short)
	}
}

func TestACommandWhoseBufferCannotBeOpenedEndsAlone(t *testing.T) {
	r := newRig(t, nil)
	before, sealed, after := newJob(In, 4096), newJob(In, 4096), newJob(In, 4096)
	sealed.Buf.Region = sealedRegion
	first := r.start(before)
	r.n.Submit(&sealed.Command)
	if sealed.ends != 1 || !errors.Is(sealed.Err, ErrNoBuffer) || sealed.Short != 4096 || sealed.Sent {
		t.Fatalf("ended %d times: %v, %d short", sealed.ends, sealed.Err, sealed.Short)
	}
	second := r.start(after)
	if a, b := pdu.SCSICommand(first.bhs[:]), pdu.SCSICommand(second.bhs[:]); b.CmdSN() != a.CmdSN()+1 {
		t.Errorf("CmdSN %v after %v: there is a gap", b.CmdSN(), a.CmdSN())
	}
	r.good(first.itt())
	r.good(second.itt())
	r.turn()
	if before.Err != nil || after.Err != nil || before.ends != 1 || after.ends != 1 {
		t.Errorf("the others: %v, %v", before.Err, after.Err)
	}
}

func TestImmediateDataGoesAlongOnlyWhenTheWholeWriteFits(t *testing.T) {
	for _, c := range []struct {
		name             string
		dir              Direction
		size             int
		yes              bool
		first, recv, out uint32
	}{
		{"fits", Out, 4096, true, 65536, 8192, 4096},
		{"fits exactly", Out, 8192, true, 65536, 8192, 8192},
		{"is longer than the target's receive buffers", Out, 8193, true, 65536, 8192, 0},
		{"is longer than the first burst", Out, 1024, true, 512, 8192, 0},
		{"not agreed", Out, 512, false, 65536, 8192, 0},
		{"a read", In, 512, true, 65536, 8192, 0},
		{"no data", NoData, 0, true, 65536, 8192, 0},
		{"a write of nothing", Out, 0, true, 65536, 8192, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(_ *fakeDM, _ *Params, g *Negotiated) {
				g.ImmediateData, g.FirstBurstLength, g.TargetRecvDataSegmentLength = c.yes, c.first, c.recv
			})
			m := r.start(newJob(c.dir, c.size))
			p := pdu.SCSICommand(m.bhs[:])
			if m.immediate != int(c.out) || p.DataSegmentLength() != int(c.out) || len(m.data) != int(c.out) {
				t.Errorf("%d bytes went along, the header says %d, want %d", m.immediate, p.DataSegmentLength(), c.out)
			}
			if p.EDTL() != uint32(c.size) || p.Write() != (c.dir == Out && c.size > 0) || !p.Final() {
				t.Errorf("header % x", m.bhs)
			}
		})
	}
}

func TestCommandsWaitForTheWindowInOrder(t *testing.T) {
	r := newRig(t, nil)
	r.n.maxCmdSN = rigCmdSN + 1
	jobs := make([]*job, 4)
	for i := range jobs {
		jobs[i] = newJob(NoData, 0)
		r.n.Submit(&jobs[i].Command)
	}
	r.n.Flush()
	sent := r.dm.takeSent()
	if len(sent) != 2 {
		t.Fatalf("%d commands were sent into a window of 2", len(sent))
	}
	r.max = rigCmdSN + 2
	r.good(sent[1].itt())
	r.turn()
	m := r.mustSend(pdu.OpSCSICommand)
	if r.n.command(m.itt()) != &jobs[2].Command || pdu.BHS(m.bhs[:]).CmdSN() != rigCmdSN+2 {
		t.Error("not the third command is next")
	}
	r.max = rigCmdSN + 1 // a window never shrinks
	r.good(sent[0].itt())
	r.turn()
	if s := r.n.Stats(); len(r.dm.takeSent()) != 0 || s.Waiting != 1 || s.Outstanding != 1 {
		t.Errorf("stats %+v", s)
	}
	// News about the window come by any PDU.
	r.dm.deliver(pdu.NOPInFields{ITT: pdu.ReservedITT, TTT: pdu.ReservedTTT, ExpCmdSN: r.n.cmdSN, MaxCmdSN: rigCmdSN + 9})
	r.turn()
	r.mustSend(pdu.OpSCSICommand)
}

func TestAVoidWindowIsIgnored(t *testing.T) {
	r := newRig(t, nil)
	before := r.n.maxCmdSN
	r.dm.deliver(pdu.NOPInFields{
		ITT: pdu.ReservedITT, TTT: pdu.ReservedTTT, ExpCmdSN: before + 100, MaxCmdSN: before + 50,
	})
	r.turn()
	if r.n.maxCmdSN != before || len(r.lost) > 0 {
		t.Errorf("MaxCmdSN %d, was %d; lost %v", r.n.maxCmdSN, before, r.lost)
	}
	// Late news are void too: a window never shrinks.
	r.dm.deliver(pdu.NOPInFields{ITT: pdu.ReservedITT, TTT: pdu.ReservedTTT, ExpCmdSN: rigCmdSN, MaxCmdSN: before - 10})
	r.turn()
	if r.n.maxCmdSN != before {
		t.Errorf("MaxCmdSN %d, was %d", r.n.maxCmdSN, before)
	}
}

func TestCommandsWaitForSlots(t *testing.T) {
	r := newRig(t, func(d *fakeDM, _ *Params, _ *Negotiated) { d.max = 2 })
	for range 3 {
		r.n.Submit(&newJob(NoData, 0).Command)
	}
	r.n.Flush()
	if got := len(r.dm.takeSent()); got != 2 {
		t.Fatalf("%d commands were sent over 2 slots", got)
	}
}

func TestCommandsWaitForTheDatamover(t *testing.T) {
	r := newRig(t, nil)
	r.dm.commandSlots = 0
	j := newJob(NoData, 0)
	r.n.Submit(&j.Command)
	r.turn()
	if len(r.dm.takeSent()) != 0 || j.Sent {
		t.Fatal("sent without a slot")
	}
	r.dm.commandSlots = 1
	r.turn()
	if m := r.mustSend(pdu.OpSCSICommand); pdu.BHS(m.bhs[:]).CmdSN() != rigCmdSN || !j.Sent {
		t.Error("the refusal used up a CmdSN")
	}
}

func TestATagIsNotUsedTwice(t *testing.T) {
	r := newRig(t, func(d *fakeDM, _ *Params, _ *Negotiated) { d.max = 1 })
	seen := map[pdu.ITT]bool{}
	for range 1000 {
		r.max++
		m := r.start(newJob(NoData, 0))
		if seen[m.itt()] || m.itt() == pdu.ReservedITT {
			t.Fatalf("tag %#x again", uint32(m.itt()))
		}
		seen[m.itt()] = true
		r.good(m.itt())
		r.turn()
	}
}

func TestOneTurnRingsOneDoorbell(t *testing.T) {
	r := newRig(t, nil)
	for range 5 {
		r.n.Submit(&newJob(NoData, 0).Command)
	}
	r.n.Flush()
	r.n.Flush()
	if r.dm.flushes != 1 {
		t.Errorf("%d doorbells", r.dm.flushes)
	}
}

func TestACompleterMaySubmitAgain(t *testing.T) {
	r := newRig(t, nil)
	j := newJob(NoData, 0)
	j.check = func() {
		if j.ends < 3 {
			r.n.Submit(&j.Command)
		}
	}
	r.n.Submit(&j.Command)
	for range 3 {
		r.n.Flush()
		r.good(r.mustSend(pdu.OpSCSICommand).itt())
		r.n.Poll()
	}
	if j.ends != 3 {
		t.Errorf("ended %d times", j.ends)
	}
}

func TestACommandHasItsOwnExpiry(t *testing.T) {
	r := newRig(t, nil)
	j := newJob(NoData, 0)
	j.Expiry = 3 * time.Second
	before := time.Now()
	r.start(j)
	if d := j.deadline.Sub(before); d < 3*time.Second || d > 4*time.Second {
		t.Errorf("deadline after %v", d)
	}
}

func TestNothingIsAllocatedForACommand(t *testing.T) {
	l := &loopback{}
	p := Params{InitiatorName: "i", TargetName: "t"}.withDefaults()
	neg := offered(&p)
	neg.ImmediateData = true
	n := newNexus(l, p, neg, 1, 64, 1)
	l.statSN = 1
	read, write := newJob(In, 4096), newJob(Out, 4096)
	allocs := testing.AllocsPerRun(1000, func() {
		n.Submit(&read.Command)
		n.Submit(&write.Command)
		n.Flush()
		n.Poll()
		n.Tick(time.Now())
		if n.Arm() {
			t.Fatal("something was left")
		}
	})
	if allocs != 0 || read.ends != 1001 || write.ends != 1001 || n.Cause() != nil {
		t.Errorf("%v allocations; %d and %d ends; %v", allocs, read.ends, write.ends, n.Cause())
	}
}

// loopback answers every command with GOOD, or with CHECK CONDITION, without allocating.
type loopback struct {
	fakeDM
	n       int
	tags    [16]pdu.ITT
	cmdSN   pdu.CmdSN
	statSN  pdu.StatSN
	bhs     [pdu.BHSLen]byte
	sense   []byte
	flushed bool
}

func (l *loopback) MaxCommands() int { return len(l.tags) }
func (l *loopback) Flush() error     { l.flushed = true; return nil }

func (l *loopback) SendCommand(bhs *[pdu.BHSLen]byte, _ Direction, _ Buffer, _ int) error {
	l.tags[l.n], l.cmdSN = pdu.BHS(bhs[:]).ITT(), pdu.BHS(bhs[:]).CmdSN()
	l.n++
	return nil
}

func (l *loopback) Poll(n Notifier) (int, error) {
	got := l.n
	for i := range l.n {
		f := pdu.SCSIResponseFields{
			ITT: l.tags[i], StatSN: l.statSN, ExpCmdSN: l.cmdSN + 1, MaxCmdSN: l.cmdSN + 64, DataLen: len(l.sense),
		}
		if l.sense != nil {
			f.Status = scsi.StatusCheckCondition
		}
		f.Encode(l.bhs[:])
		l.statSN++
		n.HandlePDU(l.bhs[:], l.sense)
	}
	l.n = 0
	return got, nil
}

func TestNothingIsAllocatedForSenseData(t *testing.T) {
	l := &loopback{statSN: 1}
	l.sense = pdu.AppendSenseData(nil, scsi.AppendDescriptorSense(nil, scsi.Sense{Key: scsi.KeyUnitAttention, ASC: 0x29}))
	p := Params{InitiatorName: "i", TargetName: "t"}.withDefaults()
	n := newNexus(l, p, offered(&p), 1, 64, 1)
	j := newJob(In, 4096)
	allocs := testing.AllocsPerRun(100, func() {
		n.Submit(&j.Command)
		n.Flush()
		n.Poll()
	})
	if allocs != 0 || j.Sense.ASC != 0x29 || n.Cause() != nil {
		t.Errorf("%v allocations; %v; %v", allocs, j.Sense, n.Cause())
	}
}

func BenchmarkCommand(b *testing.B) {
	l := &loopback{statSN: 1}
	p := Params{InitiatorName: "i", TargetName: "t"}.withDefaults()
	n := newNexus(l, p, offered(&p), 1, 64, 1)
	j := newJob(In, 4096)
	b.ReportAllocs()
	for b.Loop() {
		n.Submit(&j.Command)
		n.Flush()
		n.Poll()
	}
}
