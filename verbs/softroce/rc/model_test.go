package rc

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"iserblk/verbs"
	"pgregory.net/rapid"
)

// job is one request of a random workload.
type job struct {
	op       operation
	off, len int
	inline   bool
}

const (
	areaBytes = 8 << 10
	theirAddr = 0x7f00_0000_0000
)

// party drives one end by the verbs and keeps the books: what the other end must hold and must have received.
type party struct {
	*end
	jobs []job
	next int

	source      []byte   // the peer reads it
	target      []byte   // the peer writes it
	model       []byte   // of the peer's target
	sources     uint32   // key of source
	targets     uint32   // key of target
	local       uint32   // key of scratch
	scratch     []byte   // what our requests send from and read to
	expected    [][]byte // messages that must come to us, in order
	buffers     [][]byte
	free        []int // buffers to post
	stingy      int   // buffers posted at a time
	pause       time.Duration
	nextBuffers time.Duration
	done        int
	nextDone    uint64
	unsignaled  bool
	readChecks  map[uint64]func() error
	other       *party
	localOffset uint64
}

func newParty(e *end, jobs []job, stingy int, unsignaled bool) *party {
	p := &party{end: e, jobs: jobs, stingy: stingy, unsignaled: unsignaled, readChecks: map[uint64]func() error{}}
	p.source, p.target, p.model = make([]byte, areaBytes), make([]byte, areaBytes), make([]byte, areaBytes)
	fill := rand.New(rand.NewPCG(1, uint64(e.qp.cfg.LocalQPN)))
	for i := range p.source {
		p.source[i] = byte(fill.Uint32())
	}
	p.sources = e.mem.Register(p.source, theirAddr, PeerReads)
	p.targets = e.mem.Register(p.target, theirAddr, PeerWrites)
	p.scratch = make([]byte, e.qp.cfg.SendDepth*areaBytes)
	p.localOffset = 0x1000
	p.local = e.mem.Register(p.scratch, p.localOffset, Local)
	for i := range e.qp.cfg.RecvDepth {
		p.buffers = append(p.buffers, make([]byte, areaBytes))
		p.free = append(p.free, i)
	}
	return p
}

// postBuffers gives a few buffers away, now and then.
func (p *party) postBuffers() error {
	if p.net.now < p.nextBuffers {
		return nil
	}
	p.nextBuffers = p.net.now + p.pause
	for n := 0; n < p.stingy && len(p.free) > 0; n++ {
		i := p.free[0]
		p.free = p.free[1:]
		if err := p.qp.PostBuffer(uint64(i), p.buffers[i]); err != nil {
			return err
		}
	}
	return nil
}

// post issues the next requests, as many as fit.
func (p *party) post() error {
	for p.next < len(p.jobs) {
		id := uint64(p.next)
		j := p.jobs[p.next]
		slot := p.next % p.qp.cfg.SendDepth * areaBytes
		b := p.scratch[slot : slot+j.len]
		if p.next >= p.done+p.qp.cfg.SendDepth { // its scratch is in use
			return nil
		}
		for i := range b {
			b[i] = byte(p.next*31 + i*7)
		}
		if err := p.postJob(id, j, b, uint64(slot)); err == ErrFull {
			return nil
		} else if err != nil {
			return err
		}
		p.next++
	}
	return nil
}

func (p *party) postJob(id uint64, j job, b []byte, slot uint64) error {
	switch j.op {
	case opWrite:
		err := p.qp.PostWrite(id, p.other.targets, theirAddr+uint64(j.off), b)
		if err == nil {
			copy(p.model[j.off:], b)
		}
		return err
	case opRead:
		want := p.other.source[j.off : j.off+j.len]
		p.readChecks[id] = func() error {
			if !bytes.Equal(b, want) {
				return fmt.Errorf("READ %d brought something else", id)
			}
			return nil
		}
		return p.qp.PostRead(id, p.other.sources, theirAddr+uint64(j.off), b)
	}
	wr := verbs.SendWR{ID: id, NumSGE: 2, Signaled: 1}
	cut := uint32(j.len) / 3
	wr.SGE[0] = verbs.SGE{Addr: p.localOffset + slot, Len: cut, LKey: p.local}
	wr.SGE[1] = verbs.SGE{Addr: p.localOffset + slot + uint64(cut), Len: uint32(j.len) - cut, LKey: p.local}
	if j.inline && j.len <= p.qp.cfg.MaxInline {
		wr.Inline = 1
	}
	if p.unsignaled && p.next%4 != 3 && p.next != len(p.jobs)-1 {
		wr.Signaled = 0
	}
	_, err := p.qp.PostSend([]verbs.SendWR{wr})
	if err == nil {
		p.other.expected = append(p.other.expected, bytes.Clone(b))
		if wr.Inline != 0 {
			clear(b) // it was copied
		}
	}
	return err
}

// reap checks the completions.
func (p *party) reap() error {
	for _, wc := range p.poll() {
		if wc.Status != verbs.StatusSuccess {
			return fmt.Errorf("%+v", wc)
		}
		if wc.Op == verbs.WCRecv {
			if err := p.received(wc); err != nil {
				return err
			}
			continue
		}
		if err := p.finished(wc); err != nil {
			return err
		}
	}
	return nil
}

func (p *party) received(wc verbs.WC) error {
	got := p.buffers[wc.ID][:wc.Len]
	if len(p.expected) == 0 || !bytes.Equal(got, p.expected[0]) {
		return fmt.Errorf("message of %d bytes is not the next", wc.Len)
	}
	p.expected = p.expected[1:]
	p.free = append(p.free, int(wc.ID))
	return nil
}

// finished: requests complete in order, those without a completion of their own with the next that has one.
func (p *party) finished(wc verbs.WC) error {
	if wc.ID < p.nextDone || wc.ID >= uint64(p.next) {
		return fmt.Errorf("request %d completes when %d is next", wc.ID, p.nextDone)
	}
	for id := p.nextDone; id < wc.ID; id++ {
		if j := p.jobs[id]; j.op != opSend || !p.unsignaled {
			return fmt.Errorf("request %d never completed", id)
		}
	}
	if wc.Op != wcOps[p.jobs[wc.ID].op] {
		return fmt.Errorf("request %d is %+v", wc.ID, wc)
	}
	p.nextDone, p.done = wc.ID+1, int(wc.ID)+1
	if check := p.readChecks[wc.ID]; check != nil {
		return check()
	}
	return nil
}

func (p *party) idle() bool { return p.done == len(p.jobs) && len(p.other.expected) == 0 }

func drawJobs(t *rapid.T, label string) []job {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) job {
		j := job{op: operation(rapid.IntRange(0, 2).Draw(t, "op")), inline: rapid.Bool().Draw(t, "inline")}
		j.len = rapid.SampledFrom([]int{0, 1, 40, 255, 256, 257, 512, 1000, 2048, 5000, areaBytes}).Draw(t, "len")
		j.off = rapid.IntRange(0, areaBytes-j.len).Draw(t, "off")
		return j
	}), 0, 24).Draw(t, label)
}

func drawNetwork(t *rapid.T) *network {
	window := rapid.SampledFrom([]int{1, 2, 5, 16, 64}).Draw(t, "window")
	mtu := rapid.SampledFrom([]int{256, 512, 1024}).Draw(t, "mtu")
	depth := rapid.IntRange(1, 4).Draw(t, "reads")
	n := newNetwork(t, func(a, b *Config) {
		for _, c := range []*Config{a, b} {
			c.Window, c.MTU, c.IRD, c.ORD = window, mtu, depth, depth
		}
	})
	n.batch = rapid.SampledFrom([]int{1, 3, 64}).Draw(t, "batch")
	n.oneIn = rapid.SampledFrom([]int{0, 0, 100, 20, 5}).Draw(t, "one packet in")
	n.seed = rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	kinds := rapid.IntRange(1, int(faults)-1)
	for _, at := range rapid.SliceOfN(rapid.IntRange(0, 300), 0, 10).Draw(t, "faults at") {
		n.planned[at] = fault(kinds.Draw(t, "fault"))
	}
	return n
}

func TestWhateverTheNetworkDoesEverythingArrivesOnceAndInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := drawNetwork(rt)
		var parties [2]*party
		for i, e := range n.ends {
			parties[i] = newParty(e, drawJobs(rt, "jobs"), rapid.IntRange(1, 8).Draw(rt, "buffers at a time"), rapid.Bool().Draw(rt, "unsignaled"))
			parties[i].pause = rapid.SampledFrom([]time.Duration{0, 300 * time.Microsecond, 5 * time.Millisecond}).Draw(rt, "pause")
		}
		parties[0].other, parties[1].other = parties[1], parties[0]
		var err error
		n.run(rt, func() bool {
			for _, p := range parties {
				for _, do := range []func() error{p.reap, p.postBuffers, p.post} {
					if err == nil {
						err = do()
					}
				}
				p.pump()
			}
			return err != nil || parties[0].idle() && parties[1].idle()
		})
		if err != nil {
			rt.Fatal(err)
		}
		for _, p := range parties {
			if !bytes.Equal(p.model, p.other.target) {
				rt.Fatal("memory is not what was written")
			}
			if p.qp.Pending() != 0 || p.qp.sq.n != 0 {
				rt.Fatal("something is left over")
			}
			if s := p.qp.Stats(); n.healthy() && s.Retransmits > s.RNRNaks {
				rt.Fatalf("packets are repeated that were not lost: %+v", s)
			}
		}
		if n.now > 10*time.Minute {
			rt.Fatalf("took %v", n.now)
		}
	})
}
