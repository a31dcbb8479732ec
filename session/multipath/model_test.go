package multipath_test

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"iserblk/internal/block"
	"iserblk/iser/isertarget"
	"iserblk/session/pdu"
	"iserblk/session/scsi"
	"iserblk/verbs"
	"iserblk/verbs/verbstest"
)

const (
	modelBlocks = 16 // few, so that requests meet
	modelBlock  = 512
	modelLanes  = 2
)

// history is what was seen of one block: every value that was written to it or read from it, with when that began and
// ended. Time is a counter, so that no two moments are the same.
type history struct{ events []event }

type event struct {
	value      uint64
	began, end int64 // end is 0 while it is in flight
	read       bool
	sure       bool // the write was acknowledged, or the value was read: it was there at some time in between
}

// after tells that e happened wholly after o.
func (e event) after(o event) bool { return o.end != 0 && e.began > o.end }

// possible tells whether a read r may have seen value: somebody wrote it before r ended, and nothing else is known to
// have been there after that write and before r.
func (h *history) possible(r event) bool {
	for _, w := range h.events {
		if w.read || w.value != r.value || r.end != 0 && w.began > r.end {
			continue
		}
		if !h.overwritten(w, r) {
			return true
		}
	}
	return false
}

func (h *history) overwritten(w, r event) bool {
	for _, e := range h.events {
		if e.sure && e.value != w.value && e.after(w) && r.after(e) {
			return true
		}
	}
	return false
}

// model runs requests and faults against a bed and keeps the books.
type model struct {
	*bed
	rt *rapid.T

	mu       sync.Mutex
	clock    int64
	blocks   [modelBlocks]history
	wrong    []string
	mayFail  bool
	values   uint64
	inFlight atomic.Int64
}

// call is one request of the model.
type call struct {
	m     *model
	way   *way
	r     block.Request
	begun int64
	value uint64
	done  atomic.Int32
}

func (m *model) now() int64 { m.clock++; return m.clock }

func (m *model) complain(format string, args ...any) {
	m.wrong = append(m.wrong, fmt.Sprintf(format, args...))
}

// submit starts a request for blocks [at, at+n). A tag that is free is there for the asking: the caller saw to it.
func (m *model) submit(w *way, op block.Op, at, n int) {
	var tag uint16
	select {
	case tag = <-w.free:
	default:
		return
	}
	m.inFlight.Add(1)
	c := &call{m: m, way: w}
	c.r = block.Request{Op: op, Tag: tag, Sink: c, Region: w.data.Region}
	if op != block.Flush {
		c.r.Offset, c.r.Length = uint64(at)*modelBlock, uint64(n)*modelBlock
	}
	m.mu.Lock()
	m.values++
	c.begun = m.now()
	if op == block.Write {
		c.value = m.values
	}
	if op == block.Read || op == block.Write {
		c.r.Data = w.data.Mem[int(tag)*maxTransfer:][:c.r.Length]
		fill(c.r.Data, m.values) // of a read too: what was there before must not pass for what was read
	}
	if c.writes() {
		for i := range c.span() {
			m.blocks[i].events = append(m.blocks[i].events, event{value: c.value, began: c.begun})
		}
	}
	m.mu.Unlock()
	w.lane.Post(func() { w.queue.Submit(&c.r) })
}

func (c *call) writes() bool {
	return c.r.Op == block.Write || c.r.Op == block.Discard || c.r.Op == block.WriteZeroes
}

func (c *call) span() func(func(int) bool) {
	return func(yield func(int) bool) {
		for i := c.r.Offset / modelBlock; i < (c.r.Offset+c.r.Length)/modelBlock && yield(int(i)); i++ {
		}
	}
}

// Done implements block.Sink.
func (c *call) Done(_ *block.Request, errno syscall.Errno) {
	m := c.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.done.Add(1) != 1 {
		m.complain("%v at %d ended twice", c.r.Op, c.r.Offset)
		return
	}
	end := m.now()
	switch {
	case c.writes():
		m.wrote(c, end, errno)
	case c.r.Op == block.Read && errno == 0:
		for i := range c.span() {
			m.saw(i, c.begun, end, c.r.Data[(uint64(i)*modelBlock - c.r.Offset):][:modelBlock])
		}
	}
	if errno != 0 && m.setting.noPath == patience && !m.mayFail {
		m.complain("%v at %d ended with %v", c.r.Op, c.r.Offset, errno)
	}
	c.way.free <- c.r.Tag
	m.inFlight.Add(-1)
}

func (m *model) wrote(c *call, end int64, errno syscall.Errno) {
	for i := range c.span() {
		for k := range m.blocks[i].events {
			if e := &m.blocks[i].events[k]; !e.read && e.began == c.begun {
				e.end, e.sure = end, errno == 0
			}
		}
	}
}

func (m *model) saw(i int, begun, end int64, data []byte) {
	v := binary.LittleEndian.Uint64(data)
	for at := 0; at < len(data); at += 8 {
		if got := binary.LittleEndian.Uint64(data[at:]); got != v {
			m.complain("block %d is torn: %d and %d", i, v, got)
			return
		}
	}
	e := event{value: v, began: begun, end: end, read: true, sure: true}
	if !m.blocks[i].possible(e) {
		m.complain("block %d reads %d at %d-%d: %+v", i, v, begun, end, m.blocks[i].events)
	}
	m.blocks[i].events = append(m.blocks[i].events, e)
}

func fill(b []byte, v uint64) {
	for at := 0; at < len(b); at += 8 {
		binary.LittleEndian.PutUint64(b[at:], v)
	}
}

// settle ends all faults, waits for every request and writes everything once more. What the target still holds of dead
// sessions comes last: none of it may undo what was acknowledged before.
func (m *model) settle() {
	m.target.SetHooks(isertarget.Hooks{})
	m.portal.SetReject(0)
	m.quiesce()
	for at := range modelBlocks {
		m.submit(m.ways[at%modelLanes], block.Write, at, 1)
	}
	m.quiesce()
	m.target.Release(nil)
	m.check()
}

func (m *model) quiesce() {
	end := time.Now().Add(2 * patience)
	for m.inFlight.Load() > 0 {
		if !m.setting.target.EarlyReinstatement {
			m.target.Release(nil) // logins wait for what is parked
		}
		if time.Now().After(end) {
			m.rt.Fatalf("requests do not end: %v", m.pending())
		}
		time.Sleep(time.Millisecond)
	}
}

// pending describes what has not ended and the ways.
func (m *model) pending() (out []string) {
	for i, w := range m.ways {
		c, err := w.path.Counters(m.t.Context())
		out = append(out, fmt.Sprintf("lane %d: %d in flight, path %+v, %+v %v", i, depth-len(w.free), w.path.Status(), c, err))
	}
	return append(out, fmt.Sprintf("parked %v", m.target.Parked()))
}

func (m *model) check() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.blocks {
		t := m.now()
		m.saw(i, t, t, m.disk.ReadAt(i*modelBlock, modelBlock))
	}
	if len(m.wrong) > 0 {
		m.rt.Fatalf("%q", m.wrong)
	}
	if v := m.target.Violations(); len(v) > 0 {
		m.rt.Fatalf("violations: %q", v)
	}
}

// strike has the next commands of the data path meet a.
func (m *model) strike(n int, a isertarget.Action) {
	var left atomic.Int32
	left.Store(int32(n))
	m.target.SetHooks(isertarget.Hooks{Command: func(c isertarget.Command) isertarget.Action {
		switch c.Op() {
		case opRead16, opWrite16, opSync16, opWriteSame, opUnmap:
			if left.Add(-1) >= 0 {
				return a
			}
		}
		return isertarget.Execute()
	}})
}

// step lets something happen: mostly requests, else a fault or the end of one.
func (m *model) step(t *rapid.T) {
	if rapid.IntRange(0, 2).Draw(t, "kind") > 0 {
		m.request(t)
		return
	}
	n := rapid.IntRange(1, 3)
	action := rapid.SampledFrom([]string{
		"rest", "rest", "release", "kill", "disconnect", "leave a ghost", "refuse", "healthy", "busy", "attention",
		"aborted", "park", "slow", "hang up", "short",
	})
	switch action.Draw(t, "action") {
	case "rest":
		time.Sleep(time.Duration(n.Draw(t, "ms")) * time.Millisecond)
	case "release":
		m.target.Release(nil)
	case "kill":
		m.some(t, func(p *verbstest.Peer) { p.Kill(verbs.StatusRetryExc) })
	case "disconnect":
		m.some(t, (*verbstest.Peer).Disconnect)
	case "leave a ghost":
		m.leaveGhost(rapid.IntRange(0, modelBlocks-2).Draw(t, "at"))
	case "refuse":
		m.portal.SetReject(8)
	case "healthy":
		m.portal.SetReject(0)
		m.target.SetHooks(isertarget.Hooks{})
	case "busy":
		m.strike(n.Draw(t, "n"), isertarget.Answer(scsi.StatusBusy))
	case "attention":
		m.strike(n.Draw(t, "n"), isertarget.Check(scsi.Sense{Key: scsi.KeyUnitAttention, ASC: 0x29}))
	case "aborted":
		m.strike(n.Draw(t, "n"), isertarget.Check(scsi.Sense{Key: scsi.KeyAbortedCommand}))
	case "park":
		m.strike(n.Draw(t, "n"), isertarget.Park())
	case "slow":
		m.strike(n.Draw(t, "n"), isertarget.Delay(5*time.Millisecond))
	case "hang up":
		m.strike(n.Draw(t, "n"), isertarget.Disconnect())
	case "short":
		m.forgive() // what comes short too often does
		m.target.SetHooks(isertarget.Hooks{Message: shorten(int32(n.Draw(t, "n")))})
	}
}

func (m *model) forgive() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mayFail = true
}

func (m *model) request(t *rapid.T) {
	at := rapid.IntRange(0, modelBlocks-1).Draw(t, "at")
	n := rapid.IntRange(1, min(6, modelBlocks-at)).Draw(t, "n")
	op := rapid.SampledFrom([]block.Op{
		block.Write, block.Write, block.Write, block.Read, block.Read, block.Flush, block.Discard, block.WriteZeroes,
	})
	m.submit(m.ways[rapid.IntRange(0, modelLanes-1).Draw(t, "lane")], op.Draw(t, "op"), at, n)
}

func (m *model) some(t *rapid.T, strike func(*verbstest.Peer)) {
	for _, p := range m.portal.Peers() {
		if rapid.Bool().Draw(t, "this") {
			strike(p)
		}
	}
}

// leaveGhost has a write reach the target, which sits on it, and the connections die.
func (m *model) leaveGhost(at int) {
	held := len(m.target.Parked())
	m.strike(1, isertarget.ParkPulled())
	m.submit(m.ways[at%modelLanes], block.Write, at, 2)
	for end := time.Now().Add(10 * time.Millisecond); len(m.target.Parked()) == held && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	m.cut()
}

// shorten makes the next n good responses claim that the last 100 bytes were not moved.
func shorten(n int32) func(isertarget.Message) [][]byte {
	var left atomic.Int32
	left.Store(n)
	return func(m isertarget.Message) [][]byte {
		if m.Opcode() == pdu.OpSCSIResponse && m.BHS()[3] == 0 && left.Add(-1) >= 0 {
			m.Bytes = append([]byte(nil), m.Bytes...)
			m.BHS()[1] |= 0x02 // underflow
			m.BHS()[47] = 100
		}
		return [][]byte{m.Bytes}
	}
}

// Whatever happens to the paths and at the target: every request ends once, and nobody ever reads what was overwritten
// before, neither by the unit nor from the medium afterwards.
func TestNothingIsLostOrUndoneWhateverHappens(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		// A reset by one lane ends the commands of the other without a word, so they must not wait for long.
		s := setting{lanes: modelLanes, command: 200 * time.Millisecond, disk: isertarget.DiskOptions{Blocks: modelBlocks, WriteCache: true}}
		s.target.EarlyReinstatement = rapid.Bool().Draw(rt, "target like tgt")
		if !s.target.EarlyReinstatement && rapid.Bool().Draw(rt, "target like LIO") {
			s.target.Vendor = "LIO-ORG"
		}
		if rapid.Bool().Draw(rt, "impatient") {
			s.noPath = 30 * time.Millisecond
		}
		m := &model{bed: newBed(t, s), rt: rt}
		defer m.bed.close()
		for i := range m.blocks {
			m.blocks[i].events = []event{{end: m.now(), sure: true}}
		}
		for range rapid.IntRange(10, 40).Draw(rt, "steps") {
			m.step(rt)
		}
		m.settle()
	})
}
