package rc

import (
	"container/heap"
	"math/rand/v2"
	"net/netip"
	"time"

	"iserblk/verbs"
	"iserblk/verbs/softroce/wire"
)

// fault is what happens to one packet.
type fault uint8

const (
	healthy fault = iota
	lost
	twice
	late // overtaken by those behind it
	damaged
	faults
)

// network carries the packets of two ends. Everything that happens in it follows from its fields.
type network struct {
	now     time.Duration
	ends    [2]*end
	queue   packets
	sent    int
	planned map[int]fault // by the number of the packet
	seed    *rand.Rand    // of unplanned faults, one packet in oneIn
	oneIn   int
	delay   time.Duration
	batch   int // packets that an end takes before it answers
}

// end is one queue pair with its memory, as a socket's loop would drive it.
type end struct {
	qp    *QP
	mem   *Memory
	in    *wire.Flow
	out   *wire.Flow
	inbox [][]byte
	net   *network
	peer  *end
}

type flying struct {
	at  time.Duration
	n   int
	to  *end
	raw []byte
}

type packets []flying

func (p packets) Len() int { return len(p) }
func (p packets) Less(i, j int) bool {
	return p[i].at < p[j].at || p[i].at == p[j].at && p[i].n < p[j].n
}
func (p packets) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)   { *p = append(*p, x.(flying)) }
func (p *packets) Pop() any {
	last := (*p)[len(*p)-1]
	*p = (*p)[:len(*p)-1]
	return last
}

const linkDelay = 20 * time.Microsecond

func testConfig() Config {
	return Config{
		MTU: 256, AckTimeout: 30 * time.Second, RetryCount: 6, RNRRetry: 7, RNRTimer: wire.RNRCode(time.Millisecond),
		SendDepth: 16, RecvDepth: 8, MaxInline: 64, IRD: 4, ORD: 4, Window: 16,
	}
}

// failer is a test or a rapid check.
type failer interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// newNetwork joins two ends. change may set what the test needs to be different.
func newNetwork(t failer, change func(a, b *Config)) *network {
	n := &network{delay: linkDelay, batch: 1, planned: map[int]fault{}}
	addrs := [2]netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:4791"), netip.MustParseAddrPort("10.0.0.2:4791")}
	var cfgs [2]Config
	for i := range cfgs {
		cfgs[i] = testConfig()
		n.ends[i] = &end{net: n, mem: NewMemory([32]byte{byte(i)})}
		n.ends[i].out = wire.NewFlow(addrs[i], addrs[1-i])
		n.ends[i].in = wire.NewFlow(addrs[1-i], addrs[i])
		cfgs[i].Memory = n.ends[i].mem
	}
	cfgs[0].LocalQPN, cfgs[0].RemoteQPN, cfgs[0].SendPSN, cfgs[0].RecvPSN = 0x111111, 0x222222, 0xfffff0, 0x000777
	cfgs[1].LocalQPN, cfgs[1].RemoteQPN, cfgs[1].SendPSN, cfgs[1].RecvPSN = 0x222222, 0x111111, 0x000777, 0xfffff0
	if change != nil {
		change(&cfgs[0], &cfgs[1])
	}
	for i, e := range n.ends {
		qp, err := New(cfgs[i])
		if err != nil {
			t.Fatal(err)
		}
		e.qp, e.peer = qp, n.ends[1-i]
	}
	return n
}

// pump sends what an end has to say.
func (e *end) pump() {
	var p Packet
	for e.qp.Next(e.net.now, &p) {
		e.out.Seal(p.Header(), &p.Data, p.Trailer())
		raw := p.Append(make([]byte, 0, p.Len()))
		raw = append(raw, p.Trailer()[len(p.Trailer())-wire.ICRCLen:]...)
		e.net.carry(e.peer, raw)
	}
}

// carry takes one packet, whose fate is planned or diced for.
func (n *network) carry(to *end, raw []byte) {
	f := n.planned[n.sent]
	if f == healthy && n.oneIn > 0 && n.seed.IntN(n.oneIn) == 0 {
		f = fault(1 + n.seed.IntN(int(faults)-1))
	}
	n.sent++
	at := n.now + n.delay
	switch f {
	case lost:
		return
	case twice:
		n.fly(at, to, raw)
	case late:
		at += 5 * n.delay
	case damaged:
		raw[n.sent%len(raw)] ^= 0x10
	}
	n.fly(at, to, raw)
}

// healthy: no packet is ever harmed.
func (n *network) healthy() bool { return n.oneIn == 0 && len(n.planned) == 0 }

func (n *network) fly(at time.Duration, to *end, raw []byte) {
	heap.Push(&n.queue, flying{at: at, n: n.sent, to: to, raw: raw})
}

// step lets the next thing happen: a packet arrives or a timer runs out. False when nothing ever will.
func (n *network) step() bool {
	at, ok := time.Duration(0), false
	if len(n.queue) > 0 {
		at, ok = n.queue[0].at, true
	}
	for _, e := range n.ends {
		if d, waits := e.qp.Deadline(); waits && (!ok || d < at) {
			at, ok = d, true
		}
	}
	if !ok {
		return false
	}
	n.now = max(n.now, at)
	for _, e := range n.ends {
		if d, waits := e.qp.Deadline(); waits && d <= n.now {
			e.qp.Tick(n.now)
			e.pump()
		}
	}
	n.deliver()
	return true
}

// deliver hands over what has arrived, several packets at a time as recvmmsg does.
func (n *network) deliver() {
	for len(n.queue) > 0 && n.queue[0].at <= n.now {
		f := heap.Pop(&n.queue).(flying)
		f.to.receive(f.raw)
	}
	for _, e := range n.ends {
		e.pump()
	}
}

func (e *end) receive(raw []byte) {
	if e.in.Check(4791, raw) {
		e.qp.Receive(e.net.now, raw[:len(raw)-wire.ICRCLen])
	}
	if e.inbox = append(e.inbox, raw); len(e.inbox) >= e.net.batch {
		e.inbox = e.inbox[:0]
		e.pump()
	}
}

// run goes on until done says so.
func (n *network) run(t failer, done func() bool) {
	t.Helper()
	for _, e := range n.ends {
		e.pump()
	}
	for steps := 0; !done(); steps++ {
		if !n.step() || steps > 1<<20 || n.now > time.Hour {
			t.Fatalf("stuck after %d steps, at %v: %+v, %+v", steps, n.now, n.ends[0].qp.stats, n.ends[1].qp.stats)
		}
	}
}

// settle goes on until nothing is under way any more.
func (n *network) settle() {
	for _, e := range n.ends {
		e.pump()
	}
	for n.step() {
		for _, e := range n.ends {
			if e.qp.Status() != verbs.StatusSuccess {
				e.pump()
			}
		}
	}
}

// poll takes all completions that wait.
func (e *end) poll() []verbs.WC {
	var wcs []verbs.WC
	var some [3]verbs.WC
	for {
		n := e.qp.Poll(some[:])
		if n == 0 {
			return wcs
		}
		wcs = append(wcs, some[:n]...)
	}
}
