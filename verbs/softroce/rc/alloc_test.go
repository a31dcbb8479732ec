package rc

import (
	"testing"
	"time"

	"iserblk/verbs"
	"iserblk/verbs/softroce/wire"
)

// wireUp joins two queue pairs directly: what one says the other hears, without the network between.
type wireUp struct {
	a, b *QP
	raw  []byte
	now  time.Duration
	wcs  [8]verbs.WC
	pkt  Packet
	keys [2]uint32 // of the memory of b, to read and to write
}

func newWireUp(t testing.TB, mtu int) (*wireUp, *network) {
	n := newNetwork(t, func(a, b *Config) {
		for _, c := range []*Config{a, b} {
			c.MTU, c.Window = mtu, 128
		}
	})
	return &wireUp{a: n.ends[0].qp, b: n.ends[1].qp, raw: make([]byte, 0, wire.MaxPacket)}, n
}

func (w *wireUp) settle() {
	for again := true; again; {
		again = w.move(w.a, w.b) || w.move(w.b, w.a)
	}
}

func (w *wireUp) move(from, to *QP) (moved bool) {
	for from.Next(w.now, &w.pkt) {
		w.raw = w.pkt.Append(w.raw[:0])
		to.Receive(w.now, w.raw)
		moved = true
	}
	return moved
}

func TestPacketsAllocateNothing(t *testing.T) {
	w, n := newWireUp(t, 1024)
	mem := make([]byte, 64<<10)
	for _, e := range n.ends {
		e.mem.Register(mem, 0, Local)
	}
	reads := n.ends[1].mem.Register(mem, 0, PeerReads)
	writes := n.ends[1].mem.Register(mem, 0, PeerWrites)
	lkey := n.ends[0].mem.Register(mem, 0, Local)
	local := make([]byte, 10000)
	sends := []verbs.SendWR{
		{ID: 1, NumSGE: 1, SGE: [2]verbs.SGE{{Addr: 0, Len: 60, LKey: lkey}}, Inline: 1, Signaled: 1},
		{ID: 2, NumSGE: 2, SGE: [2]verbs.SGE{{Addr: 0, Len: 3000, LKey: lkey}, {Addr: 100, Len: 3000, LKey: lkey}}, Signaled: 1},
	}
	recvs := []verbs.RecvWR{{ID: 1, SGE: verbs.SGE{Len: 100}}, {ID: 2, SGE: verbs.SGE{Len: 6000}}}
	if n := testing.AllocsPerRun(200, func() {
		if k, err := w.b.PostRecv(recvs); k != 2 {
			t.Fatal(err)
		}
		if k, err := w.a.PostSend(sends); k != 2 {
			t.Fatal(err)
		}
		if w.a.PostWrite(3, writes, 5, local) != nil || w.a.PostRead(4, reads, 5, local) != nil {
			t.Fatal("not posted")
		}
		w.settle()
		w.now += time.Millisecond
		w.a.Tick(w.now)
		if w.a.Poll(w.wcs[:]) != 4 || w.b.Poll(w.wcs[:]) != 2 {
			t.Fatal("not done")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func benchmark(b *testing.B, bytes int, post func(w *wireUp, buf []byte) error) {
	w, n := newWireUp(b, 4096)
	mem, buf := make([]byte, bytes), make([]byte, bytes)
	w.keys = [2]uint32{n.ends[1].mem.Register(mem, 0, PeerReads), n.ends[1].mem.Register(mem, 0, PeerWrites)}
	b.SetBytes(int64(bytes))
	b.ReportAllocs()
	for b.Loop() {
		if err := post(w, buf); err != nil {
			b.Fatal(err)
		}
		w.settle()
		if w.a.Poll(w.wcs[:]) != 1 || w.wcs[0].Status != verbs.StatusSuccess {
			b.Fatal("not done", w.wcs[0])
		}
	}
}

// The core alone, both ends and one copy between them that a socket would make: what it leaves to the sockets.
func BenchmarkRead128k(b *testing.B) {
	benchmark(b, 128<<10, func(w *wireUp, buf []byte) error { return w.a.PostRead(1, w.keys[0], 0, buf) })
}

func BenchmarkWrite128k(b *testing.B) {
	benchmark(b, 128<<10, func(w *wireUp, buf []byte) error { return w.a.PostWrite(1, w.keys[1], 0, buf) })
}

func BenchmarkRead4k(b *testing.B) {
	benchmark(b, 4<<10, func(w *wireUp, buf []byte) error { return w.a.PostRead(1, w.keys[0], 0, buf) })
}
