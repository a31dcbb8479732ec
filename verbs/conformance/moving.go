package conformance

import (
	"bytes"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/verbs"
)

func bothEndsLearnPrivateData(r *rig) {
	r.connect()
	if got := r.conn.PeerPrivateData(); !bytes.HasPrefix(got, []byte("welcome")) {
		r.t.Errorf("this end: %q", got)
	}
	if got := r.peer.PrivateData(); !bytes.HasPrefix(got, []byte("hello")) {
		r.t.Errorf("the other end: %q", got)
	}
}

// sizes straddle every path MTU.
var sizes = []int{1, 3, 28, 76, 255, 256, 257, 1024, 1025, 4095, 4096, 4097, msgLen}

func messagesArriveInOrder(r *rig) {
	r.connect().recv(0, len(sizes))
	for i, n := range sizes {
		copy(r.msg(20), pattern(i, n))
		r.send(r.sendWR(20, n))
		r.same("message out", r.peerRecv(), pattern(i, n))
		r.poll(1)
	}
	for i, n := range sizes {
		sent := make(chan error, 1)
		go func() { sent <- r.peer.Send(pattern(i+7, n)) }()
		wc := r.poll(1)[0]
		if err := r.during(func() error { return <-sent }); err != nil {
			r.t.Fatal(err)
		}
		if wc.ID != uint64(i) || wc.Status != verbs.StatusSuccess || wc.Op != verbs.WCRecv || int(wc.Len) != n {
			r.t.Fatalf("%+v", wc)
		}
		r.same("message in", r.msg(i)[:n], pattern(i+7, n))
	}
}

func aPeerWritesAndReads(r *rig) {
	r.connect()
	for i, n := range append(sizes, 65536, 65537, 300001) {
		off := 4096 + i%7
		want := append([]byte(nil), r.mem()...)
		copy(want[off:], pattern(i, n))
		if err := r.during(func() error { return r.peer.RDMAWrite(r.keys().WriteKey, r.va()+uint64(off), pattern(i, n)) }); err != nil {
			r.t.Fatal(n, err)
		}
		r.same("memory after a write", r.mem(), want)
		got := make([]byte, n)
		if err := r.during(func() error { return r.peer.RDMARead(r.keys().ReadKey, r.va()+uint64(off), got) }); err != nil {
			r.t.Fatal(n, err)
		}
		r.same("what was read", got, pattern(i, n))
	}
}

func aConnectionKnowsItsEnds(r *rig) {
	r.connect()
	if r.conn.RemoteAddr() != r.listener.Addr() || r.conn.LocalAddr().Addr() != r.at || r.conn.LocalAddr().Port() == 0 {
		r.t.Errorf("from %v to %v", r.conn.LocalAddr(), r.conn.RemoteAddr())
	}
	if r.peer.LocalAddr() != r.listener.Addr() || r.peer.RemoteAddr().Addr() != r.at {
		r.t.Errorf("the peer: from %v to %v", r.peer.RemoteAddr(), r.peer.LocalAddr())
	}
	if d := r.conn.Device(); d.Name == "" || d.PathMTU < 256 {
		r.t.Errorf("%+v", d)
	}
	if r.conn.MaxInline() < 76 {
		r.t.Errorf("%d bytes inline", r.conn.MaxInline())
	}
}

func aKeyWorksInOneDirectionOnly(r *rig) {
	read := func(key func(verbs.Keys) uint32, off, n int) func() error {
		return func() error { return r.peer.RDMARead(key(r.keys()), r.va()+uint64(off), make([]byte, n)) }
	}
	write := func(key func(verbs.Keys) uint32, off, n int) func() error {
		return func() error { return r.peer.RDMAWrite(key(r.keys()), r.va()+uint64(off), pattern(1, n)) }
	}
	readKey := func(k verbs.Keys) uint32 { return k.ReadKey }
	writeKey := func(k verbs.Keys) uint32 { return k.WriteKey }
	for name, do := range map[string]func() error{
		"reading by the key to write": read(writeKey, 0, 64),
		"writing by the key to read":  write(readKey, 0, 64),
		"reading by the local key":    read(func(k verbs.Keys) uint32 { return k.LKey ^ 0xf }, 0, 64),
		"writing by no key":           write(func(verbs.Keys) uint32 { return 0 }, 0, 64),
		"reading past the end":        read(readKey, dataLen-32, 64),
		"writing past the end":        write(writeKey, dataLen-32, 64),
		"writing before the start":    write(writeKey, -32, 64),
	} {
		r.connect()
		before := append([]byte(nil), r.arena.Mem(r.remote)...)
		if err := r.during(do); err == nil {
			r.t.Errorf("%s works", name)
		}
		r.same(name, r.mem(), before)
		r.hangUp()
	}
}

func aReleasedRegionIsClosed(r *rig) {
	r.connect()
	old, va := r.keys(), r.va()
	mem := r.mem()
	r.arena.Release(r.remote)
	if err := r.conn.Sync(); err != nil {
		r.t.Fatal(err)
	}
	if r.keys() != (verbs.Keys{}) {
		r.t.Error("it still has keys")
	}
	if err := r.during(func() error { return r.peer.RDMAWrite(old.WriteKey, va, pattern(9, 64)) }); err == nil {
		r.t.Error("the peer can write")
	}
	r.same("the region", mem[:64], make([]byte, 64))
}

func aNewRegionHasKeysAfterSync(r *rig) {
	r.connect()
	id, err := r.arena.Carve(1<<16, verbs.AccessRemote)
	if err != nil {
		r.t.Fatal(err)
	}
	if r.conn.Keys(id) != (verbs.Keys{}) {
		r.t.Error("keys before Sync")
	}
	if err := r.conn.Sync(); err != nil {
		r.t.Fatal(err)
	}
	k := r.conn.Keys(id)
	if k.LKey == 0 || k.ReadKey == 0 || k.WriteKey == 0 || k.ReadKey == k.WriteKey {
		r.t.Fatalf("%+v", k)
	}
	err = r.during(func() error { return r.peer.RDMAWrite(k.WriteKey, verbs.Addr(r.arena.Mem(id)), pattern(3, 5000)) })
	if err != nil {
		r.t.Fatal(err)
	}
	r.same("the new region", r.arena.Mem(id)[:5000], pattern(3, 5000))
	if k := r.conn.Keys(r.local); k.LKey == 0 || k.ReadKey != 0 || k.WriteKey != 0 {
		r.t.Errorf("a local region: %+v", k)
	}
}

func receivesOfDialArePosted(r *rig) {
	a := r.attr()
	a.Recvs = []verbs.RecvWR{r.recvWR(0), r.recvWR(1)}
	r.connectWith(a)
	for i := range a.Recvs {
		if err := r.during(func() error { return r.peer.Send(pattern(i, 100)) }); err != nil {
			r.t.Fatal(err)
		}
	}
	for i, wc := range r.poll(2) {
		if wc.ID != uint64(i) || wc.Status != verbs.StatusSuccess || wc.Len != 100 {
			r.t.Errorf("%+v", wc)
		}
	}
}

func aSendWaitsForAReceive(r *rig) {
	r.connect()
	sent := make(chan error, 1)
	go func() { sent <- r.peer.Send(pattern(1, 500)) }()
	var wc [1]verbs.WC
	for range 20 {
		if n, err := r.conn.Poll(wc[:]); n != 0 || err != nil {
			r.t.Fatal(n, err)
		}
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-sent:
		r.t.Fatal("it did not wait: ", err)
	default:
	}
	r.recv(0, 1)
	if wc := r.poll(1)[0]; wc.Status != verbs.StatusSuccess || wc.Len != 500 {
		r.t.Errorf("%+v", wc)
	}
	if err := r.during(func() error { return <-sent }); err != nil {
		r.t.Error(err)
	}
}

func unsignaledSendsAreSilent(r *rig) {
	r.connect()
	for i := range 3 * depth {
		wr := r.sendWR(20, 40)
		if wr.ID = uint64(i); i%8 != 7 {
			wr.Signaled = 0
		}
		r.send(wr)
		r.peerRecv()
		if i%8 == 7 {
			if wc := r.poll(1)[0]; wc.ID != uint64(i) || wc.Status != verbs.StatusSuccess {
				r.t.Fatalf("%+v", wc)
			}
		}
	}
}

func anInlineSendCopiesAtOnce(r *rig) {
	r.connect()
	copy(r.msg(20), "first")
	wr := r.sendWR(20, 5)
	wr.Inline, wr.SGE[0].LKey = 1, 0
	r.send(wr)
	copy(r.msg(20), "other")
	r.same("an inline send", r.peerRecv(), []byte("first"))
}

func noMoreIsTakenThanTheDepth(r *rig) {
	r.connect()
	var wrs []verbs.RecvWR
	for i := range 8 * depth {
		wrs = append(wrs, r.recvWR(i%msgs))
	}
	n, err := r.conn.PostRecv(wrs)
	if n < depth || n == len(wrs) || err == nil {
		r.t.Errorf("%d of %d receives were taken, %v", n, len(wrs), err)
	}
}

func aCompletionMakesFdReadable(r *rig) {
	r.connect()
	if err := r.conn.Abort(); err != nil {
		r.t.Fatal(err)
	}
	for range 3 {
		if err := errors.Join(r.conn.Arm(), r.conn.Arm()); err != nil {
			r.t.Fatal(err)
		}
		if readable(r.conn.Fd(), 20*time.Millisecond) {
			r.t.Fatal("readable too early")
		}
		r.send(r.sendWR(20, 16)) // flushes
		if !readable(r.conn.Fd(), patient) {
			r.t.Fatal("never readable")
		}
		r.poll(1)
	}
}

func aMessageWakes(r *rig) {
	r.connect().recv(0, 8)
	for i := range 8 {
		if err := r.conn.Arm(); err != nil {
			r.t.Fatal(err)
		}
		var wc [1]verbs.WC
		if n, err := r.conn.Poll(wc[:]); n != 0 || err != nil {
			r.t.Fatal(n, err)
		}
		sent := make(chan error, 1)
		go func() { sent <- r.peer.Send(pattern(i, 3000)) }()
		fds := []unix.PollFd{{Fd: int32(r.conn.Fd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, int(patient.Milliseconds())); n != 1 {
			r.t.Fatal("asleep for ever", err)
		}
		r.poll(1)
		if err := r.during(func() error { return <-sent }); err != nil {
			r.t.Fatal(err)
		}
	}
}
