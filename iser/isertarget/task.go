package isertarget

import (
	"context"
	"fmt"
	"slices"
	"time"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

// task is a SCSI command between its arrival and its answer.
type task struct {
	conn    *Conn
	sess    *session
	cmd     Command
	h       header
	read    bool
	write   bool
	data    []byte // immediate data, later all data of a write
	buf     []byte // of a read, to be given back
	pulled  bool
	aborted bool          // guarded by Target.mu
	running bool          // guarded by Target.mu; does not change once aborted is set
	ended   bool          // guarded by Target.mu
	done    chan struct{} // closed when nothing of it runs any more
}

// command takes a SCSI Command (RFC 7143 11.3).
func (c *Conn) command(h header, p pdu.SCSICommand, data []byte) bool {
	k := c.newTask(h, p, data)
	if !c.admit(k, p) {
		return false
	}
	c.t.record(Record{Op: pdu.OpSCSICommand, Conn: c.id, Command: k.cmd})
	action := Execute()
	if hook := c.t.currentHooks().Command; hook != nil {
		action = hook(k.cmd)
	}
	return k.act(action)
}

func (c *Conn) newTask(h header, p pdu.SCSICommand, data []byte) *task {
	return &task{
		conn: c, sess: c.sess, h: h, read: p.Read(), write: p.Write(),
		data: append(takeBuffer(len(data))[:0], data...), done: make(chan struct{}),
		cmd: Command{
			Conn: c.id, Portal: c.Portal().String(), Initiator: c.sess.key.initiator, ISID: c.sess.key.isid,
			LUN: p.LUN(), ITT: p.ITT(), CmdSN: p.CmdSN(), CDB: *p.CDB(), EDTL: p.EDTL(),
			Immediate: len(data), Attr: p.Attr(),
		},
	}
}

// admit books a task after checking what an initiator must have got right.
func (c *Conn) admit(k *task, p pdu.SCSICommand) bool {
	if why := c.fault(k, p); why != "" {
		c.t.violate("scsi command 0x%02x: %s", k.cmd.Op(), why)
		return false
	}
	t := c.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if k.sess.tasks[k.cmd.ITT] != nil {
		t.violations = append(t.violations, fmt.Sprintf("tag 0x%x is in use", k.cmd.ITT))
		return false
	}
	k.cmd.Seq = t.commands
	t.commands++
	k.sess.tasks[k.cmd.ITT] = k
	if n := len(k.sess.tasks) + otherPDUs; n > t.opt.Receives {
		t.violations = append(t.violations, fmt.Sprintf("%d commands, %d receives", n-otherPDUs, t.opt.Receives))
	}
	return true
}

// otherPDUs is how many receives an initiator has to leave for PDUs that are no commands.
const otherPDUs = 8

// maxExpected is more data than any command of an initiator with sense has, in bytes: there is a buffer for it.
const maxExpected = 64 << 20

// fault is what is wrong with a command's headers.
func (c *Conn) fault(k *task, p pdu.SCSICommand) string {
	o, rest := c.t.opt, int64(k.cmd.EDTL)-int64(k.cmd.Immediate)
	wsv, rsv := k.h.flags&flagWSV != 0, k.h.flags&flagRSV != 0
	switch {
	case p.Immediate():
		return "immediate bit"
	case k.cmd.EDTL > maxExpected:
		return fmt.Sprintf("%d bytes expected", k.cmd.EDTL)
	case !p.Final():
		return "unsolicited data announced"
	case k.read && k.write:
		return "bidirectional"
	case k.cmd.Immediate > 0 && (o.NoImmediateData || !k.write):
		return "immediate data not allowed"
	case k.cmd.Immediate > min(o.FirstBurst, o.RecvSegment) || rest < 0:
		return fmt.Sprintf("%d bytes of immediate data", k.cmd.Immediate)
	case wsv != (k.write && rest > 0):
		return "WSV flag"
	case rsv != (k.read && k.cmd.EDTL > 0):
		return "RSV flag"
	case !wsv && (k.h.writeTag != 0 || k.h.writeVA != 0), !rsv && (k.h.readTag != 0 || k.h.readVA != 0):
		return "STag without its flag"
	}
	return ""
}

// act carries an action out and returns whether the connection goes on.
func (k *task) act(a Action) bool {
	switch a.kind {
	case doAnswer:
		k.complete(result{status: a.status, sense: a.sense})
	case doPark:
		k.park()
	case doParkPulled:
		if k.pull(int(k.cmd.EDTL)) {
			k.park()
		}
	case doIgnore:
	case doDelay:
		k.conn.t.wg.Go(func() { k.runAfter(a.delay) })
	case doLate:
		k.conn.t.wg.Go(func() { k.answerAfter(a.delay) })
	case doDisconnect:
		k.finish()
		return false
	default:
		k.conn.perform(k)
	}
	return true
}

func (k *task) runAfter(d time.Duration) {
	select {
	case <-time.After(d):
		k.run()
	case <-k.conn.t.ctx.Done():
		k.finish()
	}
}

// answerAfter carries the command out now and answers it later. An abort in between keeps the answer back.
func (k *task) answerAfter(d time.Duration) {
	r, ok := k.begin()
	if !ok {
		return
	}
	if !k.rest() {
		k.finish()
		return
	}
	select {
	case <-time.After(d):
		if k.start() { // else its buffer is the initiator's again
			k.complete(r)
		}
	case <-k.conn.t.ctx.Done():
		k.finish()
	}
}

// run carries the command out and answers it.
func (k *task) run() {
	if r, ok := k.begin(); ok {
		k.complete(r)
	}
}

// begin carries the command out, unless it was aborted or its connection is gone: then it has ended.
func (k *task) begin() (r result, ok bool) {
	if k.start() {
		r, ok = k.execute()
	}
	if !ok {
		k.finish()
	}
	return r, ok
}

// rest notes that the command has nothing left to do but its answer, and tells whether that is still wanted.
func (k *task) rest() bool {
	k.conn.t.mu.Lock()
	defer k.conn.t.mu.Unlock()
	if k.aborted {
		return false
	}
	k.running = false
	return true
}

// start tells whether the command may run, and keeps an abort from overtaking it.
func (k *task) start() bool {
	t := k.conn.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if k.aborted {
		return false
	}
	k.running = true
	return true
}

// complete moves the data of a read, then answers.
func (k *task) complete(r result) {
	n := min(len(r.data), int(k.cmd.EDTL))
	if n > 0 && k.read && k.conn.e.RDMAWrite(k.h.readTag, k.h.readVA, r.data[:n]) != nil {
		k.finish()
		return
	}
	if k.finish() {
		k.respond(r)
	}
	// No work request of the connection is under way with them: each has returned without an error.
	giveBuffer(k.buf)
	giveBuffer(k.data)
	k.buf, k.data = nil, nil
}

// respond sends the SCSI Response (RFC 7143 11.4).
func (k *task) respond(r result) {
	f := pdu.SCSIResponseFields{Status: r.status, ITT: k.cmd.ITT}
	if r.status == scsi.StatusGood {
		k.residual(&f, r)
	}
	var data []byte
	if r.sense != nil {
		data = pdu.AppendSenseData(nil, k.conn.t.opt.sense(*r.sense))
	}
	f.DataLen = len(data)
	k.conn.reply(true, data, func(dst []byte, n counters) {
		f.StatSN, f.ExpCmdSN, f.MaxCmdSN = n.stat, n.exp, n.max
		f.Encode(dst)
	})
}

// residual says how what was moved differs from what was asked for (RFC 7143 11.4.5).
func (k *task) residual(f *pdu.SCSIResponseFields, r result) {
	moved := len(r.data)
	if k.write {
		moved = r.wrote
	}
	diff := moved - int(k.cmd.EDTL)
	f.Overflow, f.Underflow = diff > 0, diff < 0
	f.Residual = uint32(max(diff, -diff))
}

// finish takes the task off the books, once, and tells whether it may still be answered.
func (k *task) finish() bool {
	t := k.conn.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if k.ended {
		return false
	}
	k.ended = true
	delete(k.sess.tasks, k.cmd.ITT)
	k.sess.window(t.opt.Window)
	close(k.done)
	return !k.aborted
}

// pull fetches the rest of a write's data, n bytes in all. It fails when the connection does.
func (k *task) pull(n int) bool {
	if !k.write || k.pulled || n <= len(k.data) {
		return true
	}
	have, all := len(k.data), takeBuffer(n)
	copy(all, k.data)
	k.data = all
	if k.conn.e.RDMARead(k.h.writeTag, k.h.writeVA, k.data[have:]) != nil {
		k.finish()
		return false
	}
	k.pulled = true
	return true
}

func (k *task) park() {
	t := k.conn.t
	t.mu.Lock()
	defer t.mu.Unlock()
	t.parked = append(t.parked, k)
}

// Parked are the commands that wait for Release, oldest first.
func (t *Target) Parked() []Command {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Command
	for _, k := range t.parked {
		out = append(out, k.cmd)
	}
	return out
}

// WaitParked waits until n commands are parked.
func (t *Target) WaitParked(ctx context.Context, n int) ([]Command, error) {
	for {
		if p := t.Parked(); len(p) >= n {
			return p, nil
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Release carries out every parked command that match accepts, in the caller's goroutine, and returns how many. nil
// accepts all.
func (t *Target) Release(match func(Command) bool) int {
	list := t.takeParked(func(k *task) bool { return match == nil || match(k.cmd) })
	for _, k := range list {
		k.run()
	}
	return len(list)
}

// takeParked takes tasks out of the parking place.
func (t *Target) takeParked(match func(*task) bool) []*task {
	t.mu.Lock()
	defer t.mu.Unlock()
	var taken []*task
	t.parked = slices.DeleteFunc(t.parked, func(k *task) bool {
		if match(k) {
			taken = append(taken, k)
			return true
		}
		return false
	})
	return taken
}
