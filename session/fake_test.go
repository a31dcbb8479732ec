package session

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Helper()
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// message is one PDU on the fake wire.
type message struct {
	bhs       [pdu.BHSLen]byte
	data      []byte
	dir       Direction
	buf       Buffer
	immediate int
}

func (m *message) opcode() pdu.Opcode { return pdu.BHS(m.bhs[:]).Opcode() }
func (m *message) itt() pdu.ITT       { return pdu.BHS(m.bhs[:]).ITT() }

// fakeDM is a Datamover whose other end is a test: what is flushed goes to sent and to onSend, what is put into inbox
// arrives at the next Poll.
type fakeDM struct {
	t                tester
	max              int
	queued           []message
	sent             []message
	inbox            []message
	onSend           func(m *message)
	onPoll           func()
	pollErr          error
	flushErr, armErr error
	flushes          int

	commandSlots int // free; negative: any number
	controlSlots int

	open map[uint16]pdu.ITT // the tasks whose buffers the target may touch, by the low half of their tags

	closeErr                              error
	fullFeature, aborted, drained, closed bool
	polling                               bool
}

func newFake(t tester) *fakeDM {
	return &fakeDM{t: t, max: 8, commandSlots: -1, controlSlots: -1, open: map[uint16]pdu.ITT{}}
}

// sealedRegion cannot be opened to the target.
const sealedRegion = 99

func take(slots *int) error {
	if *slots == 0 {
		return ErrNoSlot
	}
	if *slots > 0 {
		*slots--
	}
	return nil
}

func (d *fakeDM) SendCommand(bhs *[pdu.BHSLen]byte, dir Direction, buf Buffer, immediate int) error {
	if d.polling {
		d.t.Error("SendCommand from within Poll")
	}
	if d.aborted {
		return errors.New("aborted")
	}
	if buf.Region == sealedRegion {
		return fmt.Errorf("command: %w", ErrNoBuffer)
	}
	if err := take(&d.commandSlots); err != nil {
		return err
	}
	m := message{bhs: *bhs, dir: dir, buf: buf, immediate: immediate}
	m.data = append(m.data, buf.Mem[:immediate]...)
	if itt, taken := d.open[uint16(m.itt())]; taken {
		d.t.Errorf("task %#x begins while %#x has its place", uint32(m.itt()), uint32(itt))
	}
	d.open[uint16(m.itt())] = m.itt()
	d.queued = append(d.queued, m)
	return nil
}

func (d *fakeDM) DeallocateTask(itt pdu.ITT) {
	if d.open[uint16(itt)] != itt {
		d.t.Errorf("task %#x ends twice", uint32(itt))
	}
	delete(d.open, uint16(itt))
}

func (d *fakeDM) SendControl(bhs *[pdu.BHSLen]byte, data []byte) error {
	if d.aborted {
		return errors.New("aborted")
	}
	if err := take(&d.controlSlots); err != nil {
		return err
	}
	d.queued = append(d.queued, message{bhs: *bhs, data: append([]byte(nil), data...)})
	return nil
}

func (d *fakeDM) Flush() error {
	if d.polling {
		d.t.Error("Flush from within Poll")
	}
	d.flushes++
	for _, m := range d.queued {
		d.sent = append(d.sent, m)
		if d.onSend != nil {
			d.onSend(&m)
		}
	}
	d.queued = nil
	return d.flushErr
}

func (d *fakeDM) Poll(n Notifier) (int, error) {
	if d.onPoll != nil {
		d.onPoll()
	}
	d.polling = true
	defer func() { d.polling = false }()
	if d.aborted {
		return 0, nil
	}
	in := d.inbox
	d.inbox = nil
	for _, m := range in {
		if m.opcode() == pdu.OpSCSIResponse {
			delete(d.open, uint16(m.itt()))
		}
		n.HandlePDU(m.bhs[:], m.data)
	}
	return len(in), d.pollErr
}

func (d *fakeDM) Fd() int                  { return -1 }
func (d *fakeDM) Arm() error               { return d.armErr }
func (d *fakeDM) MaxCommands() int         { return d.max }
func (d *fakeDM) EnableFullFeature() error { d.fullFeature = true; return nil }
func (d *fakeDM) Drained() bool            { return d.aborted && d.drained }
func (d *fakeDM) Close() error             { d.closed = true; return d.closeErr }

func (d *fakeDM) Abort() {
	if d.polling {
		d.t.Error("Abort from within Poll")
	}
	d.aborted = true
}

// deliver puts an encoded PDU into the inbox.
func (d *fakeDM) deliver(fields interface{ Encode([]byte) }, data ...byte) {
	m := message{data: data}
	fields.Encode(m.bhs[:])
	d.inbox = append(d.inbox, m)
}

// takeSent returns what was sent since the last call.
func (d *fakeDM) takeSent() []message {
	s := d.sent
	d.sent = nil
	return s
}

// rig is a nexus with a fake connection and the target's counters.
type rig struct {
	t      tester
	dm     *fakeDM
	n      *Nexus
	statSN pdu.StatSN
	max    pdu.CmdSN
	lost   []error
}

// Numbers to begin with, so that every test crosses the wrap.
var (
	rigCmdSN  pdu.CmdSN  = 0xfffffffd
	rigStatSN pdu.StatSN = 0xfffffffe
)

func newRig(t tester, change func(*fakeDM, *Params, *Negotiated)) *rig {
	t.Helper()
	dm := newFake(t)
	p := Params{InitiatorName: "iqn.2026-01.test:i", TargetName: "iqn.2026-01.test:t"}.withDefaults()
	neg := offered(&p)
	neg.ImmediateData = true
	if change != nil {
		change(dm, &p, &neg)
	}
	r := &rig{t: t, dm: dm, statSN: rigStatSN, max: rigCmdSN + 63}
	r.n = newNexus(dm, p, neg, rigCmdSN, r.max, rigStatSN)
	r.n.OnLost = func(err error) { r.lost = append(r.lost, err) }
	return r
}

// turn is one turn of a lane.
func (r *rig) turn() {
	r.n.Poll()
	r.n.Flush()
}

func (r *rig) tick() time.Duration {
	next := r.n.Tick(time.Now())
	r.n.Flush()
	return next
}

// nextStat numbers one status.
func (r *rig) nextStat() pdu.StatSN {
	r.statSN++
	return r.statSN - 1
}

// good answers a command with GOOD.
func (r *rig) good(itt pdu.ITT) {
	r.respond(pdu.SCSIResponseFields{ITT: itt})
}

// respond completes f with the counters and delivers it.
func (r *rig) respond(f pdu.SCSIResponseFields, data ...byte) {
	f.StatSN, f.ExpCmdSN, f.MaxCmdSN = r.nextStat(), r.n.cmdSN, r.max
	f.DataLen = len(data)
	r.dm.deliver(f, data...)
}

func (r *rig) tmResponse(itt pdu.ITT, code pdu.TMResponse) {
	r.dm.deliver(pdu.TMFResponseFields{
		Response: code, ITT: itt, StatSN: r.nextStat(), ExpCmdSN: r.n.cmdSN, MaxCmdSN: r.max,
	})
}

// job is a command with a record of its ends.
type job struct {
	Command
	ends  int
	check func()
}

// CommandDone implements Completer.
func (j *job) CommandDone(c *Command) {
	j.ends++
	if c != &j.Command {
		panic("another command")
	}
	if j.check != nil {
		j.check()
	}
}

func newJob(dir Direction, size int) *job {
	j := &job{}
	j.Dir, j.Done = dir, j
	if dir != NoData {
		j.Buf = Buffer{Mem: make([]byte, size), Region: 7}
	}
	scsi.TestUnitReady(&j.CDB)
	return j
}

// start submits a job and returns the PDU that it became.
func (r *rig) start(j *job) *message {
	r.t.Helper()
	r.n.Submit(&j.Command)
	r.n.Flush()
	sent := r.dm.takeSent()
	if len(sent) != 1 || sent[0].opcode() != pdu.OpSCSICommand {
		r.t.Fatalf("%d PDUs were sent, want one command", len(sent))
	}
	return &sent[0]
}

// mustSend returns the one PDU that was sent, which must be of the kind wanted.
func (r *rig) mustSend(op pdu.Opcode) *message {
	r.t.Helper()
	sent := r.dm.takeSent()
	if len(sent) != 1 || sent[0].opcode() != op {
		r.t.Fatalf("%d PDUs were sent, want one %v", len(sent), op)
	}
	return &sent[0]
}

// mustBeLost checks that the connection was given up once, for a cause that matches want.
func (r *rig) mustBeLost(want error) {
	r.t.Helper()
	if len(r.lost) != 1 || !errors.Is(r.lost[0], want) {
		r.t.Fatalf("lost: %v, want once: %v", r.lost, want)
	}
	if !r.dm.aborted {
		r.t.Fatal("the connection was not aborted")
	}
}
