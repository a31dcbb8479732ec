package rc

import (
	"bytes"
	"testing"
	"time"

	"iserblk/verbs"
	"iserblk/verbs/softroce/wire"
)

// target is one queue pair with memory, and what is made up is sent to it by hand.
type target struct {
	*end
	readable, writable []byte
	readKey, writeKey  uint32
	buffer             []byte
	now                time.Duration
}

const memAddr = 0x10000

func newTarget(t testing.TB) *target {
	n := newNetwork(t, nil)
	v := &target{end: n.ends[0], readable: bytes.Repeat([]byte{0xaa}, 4096), writable: make([]byte, 4096), buffer: make([]byte, 1000)}
	v.readKey = v.mem.Register(v.readable, memAddr, PeerReads)
	v.writeKey = v.mem.Register(v.writable, memAddr, PeerWrites)
	if err := v.qp.PostBuffer(1, v.buffer); err != nil {
		t.Fatal(err)
	}
	return v
}

// tell sends one packet to the target and returns its answers.
func (v *target) tell(h wire.Header, data []byte) []wire.Header {
	v.qp.Receive(v.now, v.packet(h, data))
	return v.answers()
}

// packet builds a packet for the target; its PSN counts from the expected one.
func (v *target) packet(h wire.Header, data []byte) []byte {
	h.PKey = wire.DefaultPKey
	h.Pad = uint8(wire.PadLen(len(data)))
	if h.DestQP == 0 {
		h.DestQP = v.qp.cfg.LocalQPN
	}
	b := append(h.Append(nil), data...)
	return append(b, make([]byte, h.Pad)...)
}

func (v *target) answers() (hs []wire.Header) {
	var p Packet
	for v.qp.Next(v.now, &p) {
		h, _, err := wire.Parse(p.Append(nil))
		if err != nil {
			panic(err)
		}
		hs = append(hs, h)
	}
	return hs
}

// state is all that a packet could change that matters.
type state struct {
	status                     verbs.Status
	expected                   wire.PSN
	msn                        uint32
	within                     operationInProgress
	oldest, upcoming           wire.PSN
	sends, recvs, done, window int
	waitUntil                  time.Duration
}

func (v *target) state() state {
	q := v.qp
	return state{
		q.status, q.resp.expected, q.resp.msn, q.resp.within, q.req.oldest, q.req.upcoming,
		q.sq.n, q.rq.n, q.done.n, q.req.win.size, q.req.waitUntil,
	}
}

// forgeries are packets by somebody who knows nearly everything. psn is what the target expects next.
func forgeries(v *target) map[string][]byte {
	psn := v.qp.resp.expected
	full := bytes.Repeat([]byte{0xee}, 256)
	few := full[:100]
	p := v.packet
	h := func(o wire.Opcode, psn wire.PSN, key uint32, addr uint64, n uint32) wire.Header {
		return wire.Header{Opcode: o, PSN: psn, RKey: key, VA: addr, Length: n, AckReq: true}
	}
	other := h(wire.WriteOnly, psn, v.writeKey, memAddr, 100)
	other.DestQP = v.qp.cfg.LocalQPN ^ 1
	return map[string][]byte{
		"another queue pair":                    p(other, few),
		"a SEND that is too early":              p(h(wire.SendOnly, psn.Add(1), 0, 0, 0), few),
		"a SEND that is much too early":         p(h(wire.SendOnly, psn.Add(1<<20), 0, 0, 0), few),
		"a SEND that is late":                   p(h(wire.SendOnly, psn.Add(-1), 0, 0, 0), few),
		"a SEND that is much too late":          p(h(wire.SendOnly, psn.Add(-1<<20), 0, 0, 0), few),
		"a WRITE that is too early":             p(h(wire.WriteOnly, psn.Add(1), v.writeKey, memAddr, 100), few),
		"a WRITE that is late":                  p(h(wire.WriteOnly, psn.Add(-1), v.writeKey, memAddr, 100), few),
		"a READ that is too early":              p(h(wire.ReadRequest, psn.Add(1), v.readKey, memAddr, 100), nil),
		"a late READ that reaches too far":      p(h(wire.ReadRequest, psn.Add(-1), v.readKey, memAddr, 1000), nil),
		"a WRITE by an unknown key":             p(h(wire.WriteOnly, psn, v.writeKey+1, memAddr, 100), few),
		"a WRITE by key 0":                      p(h(wire.WriteOnly, psn, 0, memAddr, 100), few),
		"a WRITE by the key for reading":        p(h(wire.WriteOnly, psn, v.readKey, memAddr, 100), few),
		"a WRITE before its window":             p(h(wire.WriteOnly, psn, v.writeKey, memAddr-1, 100), few),
		"a WRITE past its window":               p(h(wire.WriteOnly, psn, v.writeKey, memAddr+4096-99, 100), few),
		"a WRITE that announces too much":       p(h(wire.WriteFirst, psn, v.writeKey, memAddr+1, 4096), full),
		"a WRITE at the end of addresses":       p(h(wire.WriteOnly, psn, v.writeKey, 1<<64-50, 100), few),
		"a WRITE that brings more than said":    p(h(wire.WriteOnly, psn, v.writeKey, memAddr, 99), few),
		"a WRITE that brings less than said":    p(h(wire.WriteOnly, psn, v.writeKey, memAddr, 101), few),
		"a first WRITE that is the last":        p(h(wire.WriteFirst, psn, v.writeKey, memAddr, 256), full),
		"a first WRITE that is not full":        p(h(wire.WriteFirst, psn, v.writeKey, memAddr, 1000), few),
		"a WRITE of 2 GiB":                      p(h(wire.WriteFirst, psn, v.writeKey, memAddr, 1<<31), full),
		"a WRITE that never began":              p(h(wire.WriteMiddle, psn, 0, 0, 0), full),
		"a WRITE that ends before it began":     p(h(wire.WriteLast, psn, 0, 0, 0), few),
		"a WRITE with immediate data":           p(h(wire.WriteOnlyImmediate, psn, v.writeKey, memAddr, 100), few),
		"a READ by an unknown key":              p(h(wire.ReadRequest, psn, v.readKey+1, memAddr, 100), nil),
		"a READ by the key for writing":         p(h(wire.ReadRequest, psn, v.writeKey, memAddr, 100), nil),
		"a READ past its window":                p(h(wire.ReadRequest, psn, v.readKey, memAddr+1, 4096), nil),
		"a READ of 4 GiB":                       p(h(wire.ReadRequest, psn, v.readKey, memAddr, 1<<32-1), nil),
		"a READ with data":                      p(h(wire.ReadRequest, psn, v.readKey, memAddr, 100), few),
		"a SEND that never began":               p(h(wire.SendLast, psn, 0, 0, 0), few),
		"a first SEND that is not full":         p(h(wire.SendFirst, psn, 0, 0, 0), few),
		"a SEND of more than a packet holds":    p(h(wire.SendOnly, psn, 0, 0, 0), append(full, 1)),
		"a SEND with immediate data":            p(h(wire.SendOnlyImmediate, psn, 0, 0, 0), few),
		"an atomic operation":                   append([]byte{0x13}, p(h(wire.ReadRequest, psn, v.readKey, memAddr, 8), nil)[1:]...),
		"an atomic answer":                      append([]byte{0x12}, p(h(wire.Ack, v.qp.req.oldest, 0, 0, 0), nil)[1:]...),
		"a datagram":                            p(wire.Header{Opcode: wire.UDSendOnly, PSN: psn}, few),
		"a congestion notification":             p(wire.Header{Opcode: wire.CongestionNotification}, make([]byte, 16)),
		"an ACK of what was never sent":         p(wire.Header{Opcode: wire.Ack, PSN: v.qp.req.newest, Syndrome: wire.AckNoCredits}, nil),
		"a NAK of what was never sent":          p(wire.Header{Opcode: wire.Ack, PSN: v.qp.req.newest, Syndrome: wire.NakRemoteAccess}, nil),
		"an ACK of what is done":                p(wire.Header{Opcode: wire.Ack, PSN: v.qp.req.oldest.Add(-1), Syndrome: wire.AckNoCredits}, nil),
		"an ACK of a reserved kind":             p(wire.Header{Opcode: wire.Ack, PSN: v.qp.req.oldest, Syndrome: 0x80}, nil),
		"data that was not read":                p(wire.Header{Opcode: wire.ReadResponseOnly, PSN: v.qp.req.oldest}, few),
		"data that comes with a NAK":            p(wire.Header{Opcode: wire.ReadResponseOnly, PSN: v.qp.req.oldest, Syndrome: wire.NakRemoteAccess}, few),
		"data that was never asked for":         p(wire.Header{Opcode: wire.ReadResponseMiddle, PSN: v.qp.req.newest}, full),
		"padding that does not fit":             append(p(h(wire.SendOnly, psn, 0, 0, 0), few), 0, 0, 0, 0)[:len(few)+wire.BTHLen+2],
		"half a header":                         p(h(wire.WriteOnly, psn, v.writeKey, memAddr, 100), few)[:20],
		"nothing":                               {},
		"another version":                       version(p(h(wire.SendOnly, psn, 0, 0, 0), few)),
		"more than the longest packet there is": make([]byte, 9000),
	}
}

func version(b []byte) []byte { b[1] |= 1; return b }

func TestForgedPacketsChangeNothing(t *testing.T) {
	names := forgeries(newTarget(t))
	for name := range names {
		t.Run(name, func(t *testing.T) {
			v := newTarget(t)
			v.tell(wire.Header{Opcode: wire.SendOnly, PSN: v.qp.resp.expected}, []byte("so that something is behind us"))
			v.poll()
			v.qp.PostBuffer(2, v.buffer)
			v.qp.PostMessage(7, []byte("under way"))
			v.answers()
			before := v.state()
			v.qp.Receive(v.now, forgeries(v)[name])
			if after := v.state(); after != before {
				t.Errorf("%+v\nbecame\n%+v", before, after)
			}
			if !bytes.Equal(v.writable, make([]byte, 4096)) || bytes.Contains(v.buffer, []byte{0xee}) {
				t.Error("memory was written")
			}
			for _, h := range v.answers() {
				if h.Opcode.IsReadResponse() {
					t.Error("memory was read")
				}
			}
			v.mustStillWork(t)
		})
	}
}

// mustStillWork has the honest peer go on.
func (v *target) mustStillWork(t *testing.T) {
	t.Helper()
	psn := v.qp.resp.expected
	v.tell(wire.Header{Opcode: wire.WriteOnly, PSN: psn, RKey: v.writeKey, VA: memAddr + 10, Length: 6}, []byte("honest"))
	if string(v.writable[10:16]) != "honest" {
		t.Error("an honest WRITE fails")
	}
	as := v.tell(wire.Header{Opcode: wire.ReadRequest, PSN: psn.Add(1), RKey: v.readKey, VA: memAddr, Length: 300}, nil)
	if len(as) != 2 || as[0].Opcode != wire.ReadResponseFirst || as[1].Opcode != wire.ReadResponseLast {
		t.Errorf("an honest READ fails: %+v", as)
	}
	v.tell(wire.Header{Opcode: wire.SendOnly, PSN: psn.Add(3)}, []byte("hello"))
	v.tell(wire.Header{Opcode: wire.Ack, PSN: v.qp.req.oldest, Syndrome: wire.AckNoCredits}, nil)
	wcs := v.poll()
	if len(wcs) != 2 || wcs[0].Len != 5 || wcs[1].ID != 7 || wcs[1].Status != verbs.StatusSuccess {
		t.Errorf("honest SENDs fail: %+v", wcs)
	}
}

func TestAFloodOfWrongRequestsIsAnsweredSparingly(t *testing.T) {
	v := newTarget(t)
	bad := v.packet(wire.Header{Opcode: wire.WriteOnly, PSN: v.qp.resp.expected, RKey: 1, VA: memAddr, Length: 4}, []byte("evil"))
	naks := 0
	for i := range 100000 {
		v.now = time.Duration(i) * time.Microsecond
		v.qp.Receive(v.now, bad)
		naks += len(v.answers())
	}
	if naks < limitBurst || naks > 100+limitBurst {
		t.Errorf("%d NAKs in 100 ms", naks)
	}
}

func TestAFloodAmidHonestPacketsCannotTalkThePeerToDeath(t *testing.T) {
	v := newTarget(t)
	naks := 0
	for i := range 20000 {
		v.now = time.Duration(i) * 2 * time.Microsecond
		psn := v.qp.resp.expected
		v.qp.Receive(v.now, v.packet(wire.Header{Opcode: wire.WriteOnly, PSN: psn}, nil))
		for _, h := range v.tell(wire.Header{Opcode: wire.SendOnly, PSN: psn.Add(3)}, nil) {
			if h.Syndrome == wire.NakSequence {
				naks++
			}
		}
	}
	if naks > 40000/50+limitBurst {
		t.Errorf("%d NAKs in 40 ms", naks)
	}
}

func TestAFloodNeedsNoMemory(t *testing.T) {
	v := newTarget(t)
	psn := v.qp.resp.expected
	flood := [][]byte{
		v.packet(wire.Header{Opcode: wire.ReadRequest, PSN: psn, RKey: v.readKey, VA: memAddr, Length: 4096}, nil),
		v.packet(wire.Header{Opcode: wire.ReadRequest, PSN: psn.Add(16), RKey: v.readKey, VA: memAddr, Length: 4096}, nil),
		v.packet(wire.Header{Opcode: wire.ReadRequest, PSN: psn.Add(1), RKey: v.readKey, VA: memAddr, Length: 256}, nil),
		v.packet(wire.Header{Opcode: wire.SendOnly, PSN: psn, AckReq: true}, nil),
		v.packet(wire.Header{Opcode: wire.SendOnly, PSN: psn.Add(5000), AckReq: true}, nil),
		v.packet(wire.Header{Opcode: wire.WriteMiddle, PSN: psn.Add(32), AckReq: true}, nil),
	}
	if n := testing.AllocsPerRun(1000, func() {
		for _, b := range flood {
			v.qp.Receive(v.now, b)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := len(v.answers()); n > 16*2*testConfig().IRD+2*testConfig().IRD+1 {
		t.Errorf("%d packets in answer", n)
	}
}

func FuzzReceive(f *testing.F) {
	for _, b := range forgeries(newTarget(f)) {
		f.Add(b, b)
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		v := newTarget(t)
		v.qp.PostWrite(5, 1, 2, make([]byte, 600))
		v.qp.PostRead(6, 1, 2, make([]byte, 600))
		v.answers()
		canary := v.mem.Register(make([]byte, 64), memAddr+8192, Local)
		for range 2 {
			v.qp.Receive(v.now, one)
			v.qp.Receive(v.now, two)
			if len(v.answers()) > 200 {
				t.Fatal("two packets have many answers")
			}
			v.now += time.Second
			v.qp.Tick(v.now)
		}
		b, _ := v.mem.Resolve(canary, Local, memAddr+8192, 64)
		if !bytes.Equal(b, make([]byte, 64)) || bytes.Count(v.readable, []byte{0xaa}) != 4096 {
			t.Fatal("memory was written that nobody may write")
		}
		v.qp.Abort()
		if v.qp.sq.n+v.qp.rq.n != 0 || v.qp.Pending() != 3 {
			t.Fatalf("%d completions of 3 work requests", v.qp.Pending())
		}
	})
}
