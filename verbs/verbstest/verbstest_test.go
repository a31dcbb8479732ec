package verbstest_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"iserblk/verbs"
	"iserblk/verbs/verbstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var addr = netip.MustParseAddrPort("10.0.0.1:3260")

// pair is both ends of a connection and the memory behind it.
type pair struct {
	net      *verbstest.Net
	listener *verbstest.Listener
	arena    *verbs.Arena
	local    verbs.RegionID
	remote   verbs.RegionID
	conn     verbs.Conn
	peer     *verbstest.Peer
}

func connect(t *testing.T) *pair {
	t.Helper()
	p := &pair{net: verbstest.New()}
	var err error
	if p.listener, err = p.net.Portal(addr); err != nil {
		t.Fatal(err)
	}
	if p.arena, err = verbs.NewArena(1 << 20); err != nil {
		t.Fatal(err)
	}
	p.local, p.remote = carve(t, p.arena, verbs.AccessLocal), carve(t, p.arena, verbs.AccessRemote)
	attr := verbs.DialAttr{Dst: addr, SendDepth: 4, RecvDepth: 4, MaxInline: 128, Arena: p.arena}
	if p.conn, err = p.net.Dial(t.Context(), attr); err != nil {
		t.Fatal(err)
	}
	if p.peer, err = p.listener.AcceptPeer(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.conn.Close()
		_ = p.listener.Close()
		_ = p.arena.Close()
	})
	return p
}

func carve(t *testing.T, a *verbs.Arena, access verbs.Access) verbs.RegionID {
	t.Helper()
	id, err := a.Carve(4096, access)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (p *pair) sge(off, n int) verbs.SGE {
	return verbs.SGE{
		Addr: verbs.Addr(p.arena.Mem(p.local)) + uint64(off), Len: uint32(n), LKey: p.conn.Keys(p.local).LKey,
	}
}

func (p *pair) post(t *testing.T, id uint64, off, n int) {
	t.Helper()
	wr := verbs.SendWR{ID: id, SGE: [2]verbs.SGE{p.sge(off, n)}, NumSGE: 1, Signaled: 1}
	if _, err := p.conn.PostSend([]verbs.SendWR{wr}); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) postRecv(t *testing.T, id uint64, off, n int) {
	t.Helper()
	if _, err := p.conn.PostRecv([]verbs.RecvWR{{ID: id, SGE: p.sge(off, n)}}); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) poll(t *testing.T) []verbs.WC {
	t.Helper()
	wcs := make([]verbs.WC, 16)
	n, err := p.conn.Poll(wcs)
	if err != nil {
		t.Fatal(err)
	}
	return wcs[:n]
}

func TestBytesOfASendAreThoseAtItsDelivery(t *testing.T) {
	p := connect(t)
	mem := p.arena.Mem(p.local)
	copy(mem, "early")
	p.post(t, 1, 0, 5)
	if len(p.poll(t)) != 0 {
		t.Fatal("a send completed before it was received")
	}
	copy(mem, "later")
	buf := make([]byte, 16)
	n, err := p.peer.Recv(t.Context(), buf)
	if err != nil || string(buf[:n]) != "later" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if wcs := p.poll(t); len(wcs) != 1 || wcs[0].ID != 1 || wcs[0].Op != verbs.WCSend {
		t.Errorf("%+v", wcs)
	}
}

func TestBytesOfAnInlineSendAreThoseAtItsPost(t *testing.T) {
	p := connect(t)
	mem := p.arena.Mem(p.local)
	copy(mem, "early")
	wr := verbs.SendWR{SGE: [2]verbs.SGE{p.sge(0, 5)}, NumSGE: 1, Inline: 1}
	wr.SGE[0].LKey = 0
	if _, err := p.conn.PostSend([]verbs.SendWR{wr}); err != nil {
		t.Fatal(err)
	}
	copy(mem, "later")
	buf := make([]byte, 16)
	if n, err := p.peer.Recv(t.Context(), buf); err != nil || string(buf[:n]) != "early" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	if len(p.poll(t)) != 0 {
		t.Error("an unsignaled send completed")
	}
}

func TestKeysWorkInTheirDirectionAndRangeOnly(t *testing.T) {
	type access func(p *pair, key uint32, va uint64, n int) error
	write := func(p *pair, key uint32, va uint64, n int) error { return p.peer.RDMAWrite(key, va, make([]byte, n)) }
	read := func(p *pair, key uint32, va uint64, n int) error { return p.peer.RDMARead(key, va, make([]byte, n)) }
	for name, c := range map[string]struct {
		do  access
		key func(verbs.Keys) uint32
		off uint64
		n   int
		ok  bool
	}{
		"write all":          {write, func(k verbs.Keys) uint32 { return k.WriteKey }, 0, 4096, true},
		"read all":           {read, func(k verbs.Keys) uint32 { return k.ReadKey }, 0, 4096, true},
		"write by read key":  {write, func(k verbs.Keys) uint32 { return k.ReadKey }, 0, 1, false},
		"read by write key":  {read, func(k verbs.Keys) uint32 { return k.WriteKey }, 0, 1, false},
		"write by local key": {write, func(k verbs.Keys) uint32 { return k.LKey }, 0, 1, false},
		"one byte too far":   {write, func(k verbs.Keys) uint32 { return k.WriteKey }, 1, 4096, false},
		"before the region":  {read, func(k verbs.Keys) uint32 { return k.ReadKey }, ^uint64(0), 2, false},
		"no key":             {read, func(verbs.Keys) uint32 { return 0 }, 0, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := connect(t)
			err := c.do(p, c.key(p.conn.Keys(p.remote)), verbs.Addr(p.arena.Mem(p.remote))+c.off, c.n)
			if c.ok != (err == nil) || !c.ok && !errors.Is(err, verbs.StatusRemAccessErr) {
				t.Fatal(err)
			}
			if c.ok {
				return
			}
			if err := p.peer.Send(nil); !errors.Is(err, verbstest.ErrGone) {
				t.Errorf("the connection lives on: %v", err)
			}
		})
	}
}

func TestLocalRegionHasNoKeysForThePeer(t *testing.T) {
	p := connect(t)
	if k := p.conn.Keys(p.local); k.LKey == 0 || k.ReadKey != 0 || k.WriteKey != 0 {
		t.Errorf("%+v", k)
	}
}

func TestReleasedRegionLosesItsKeysAtSync(t *testing.T) {
	p := connect(t)
	key, va := p.conn.Keys(p.remote).WriteKey, verbs.Addr(p.arena.Mem(p.remote))
	p.arena.Release(p.remote)
	if err := p.conn.Sync(); err != nil {
		t.Fatal(err)
	}
	if k := p.conn.Keys(p.remote); k != (verbs.Keys{}) {
		t.Errorf("%+v", k)
	}
	if err := p.peer.RDMAWrite(key, va, []byte{1}); !errors.Is(err, verbs.StatusRemAccessErr) {
		t.Error(err)
	}
}

func TestRegionsCarvedAfterDialWorkAfterSync(t *testing.T) {
	p := connect(t)
	id := carve(t, p.arena, verbs.AccessRemote)
	if k := p.conn.Keys(id); k != (verbs.Keys{}) {
		t.Errorf("keys before Sync: %+v", k)
	}
	if err := p.conn.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := p.peer.RDMAWrite(p.conn.Keys(id).WriteKey, verbs.Addr(p.arena.Mem(id)), []byte{7}); err != nil {
		t.Fatal(err)
	}
	if p.arena.Mem(id)[0] != 7 {
		t.Error("nothing was written")
	}
}

func TestMoreThanTheDepthsIsRefused(t *testing.T) {
	p := connect(t)
	wrs := make([]verbs.SendWR, 5)
	for i := range wrs {
		wrs[i] = verbs.SendWR{SGE: [2]verbs.SGE{p.sge(0, 1)}, NumSGE: 1, Signaled: 1}
	}
	if n, err := p.conn.PostSend(wrs); n != 4 || err == nil {
		t.Errorf("sends: %d, %v", n, err)
	}
	if n, err := p.conn.PostRecv(make([]verbs.RecvWR, 5)); n != 4 || err == nil {
		t.Errorf("receives: %d, %v", n, err)
	}
}

func TestSendWaitsForAReceive(t *testing.T) {
	p := connect(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.peer.Send([]byte("hi")); err != nil {
			t.Error(err)
		}
	})
	for p.peer.Waits() == 0 {
		time.Sleep(time.Millisecond)
	}
	p.postRecv(t, 9, 0, 64)
	wg.Wait()
	if wcs := p.poll(t); len(wcs) != 1 || wcs[0].ID != 9 || wcs[0].Op != verbs.WCRecv || wcs[0].Len != 2 {
		t.Errorf("%+v", wcs)
	}
}

func TestMessageLongerThanItsReceiveBreaksTheConnection(t *testing.T) {
	p := connect(t)
	p.postRecv(t, 1, 0, 4)
	p.postRecv(t, 2, 64, 4)
	if err := p.peer.Send([]byte("12345")); !errors.Is(err, verbstest.ErrGone) {
		t.Error(err)
	}
	wcs := p.poll(t)
	if len(wcs) != 2 || wcs[0].Status != verbs.StatusLocLenErr || wcs[1].Status != verbs.StatusFlushed {
		t.Errorf("%+v", wcs)
	}
}

func TestAbortFlushesEverythingAndLaterPostsToo(t *testing.T) {
	p := connect(t)
	p.postRecv(t, 1, 0, 4)
	p.post(t, 2, 0, 4)
	for range 2 {
		if err := p.conn.Abort(); err != nil {
			t.Fatal(err)
		}
	}
	p.post(t, 3, 0, 4)
	wcs := p.poll(t)
	if len(wcs) != 3 {
		t.Fatalf("%+v", wcs)
	}
	for _, wc := range wcs {
		if wc.Status != verbs.StatusFlushed {
			t.Errorf("%+v", wc)
		}
	}
	if _, err := p.peer.Recv(t.Context(), make([]byte, 8)); !errors.Is(err, verbstest.ErrGone) {
		t.Error(err)
	}
}

func TestDescriptorIsReadableOnlyForWhatCameAfterArm(t *testing.T) {
	p := connect(t)
	p.post(t, 1, 0, 4)
	_, _ = p.peer.Recv(t.Context(), make([]byte, 8))
	if readable(p.conn.Fd()) {
		t.Error("readable without Arm")
	}
	if err := p.conn.Arm(); err != nil {
		t.Fatal(err)
	}
	if readable(p.conn.Fd()) {
		t.Error("readable for a completion from before Arm")
	}
	p.post(t, 2, 0, 4)
	_, _ = p.peer.Recv(t.Context(), make([]byte, 8))
	if !readable(p.conn.Fd()) {
		t.Error("not readable")
	}
}

func readable(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, _ := unix.Poll(p, 0)
	return n > 0
}

func TestListenerRefusesIgnoresAndEnds(t *testing.T) {
	net1 := verbstest.New()
	l, err := net1.Portal(addr)
	if err != nil {
		t.Fatal(err)
	}
	arena, err := verbs.NewArena(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	defer arena.Close()
	dial := func(ctx context.Context) error {
		_, err := net1.Dial(ctx, verbs.DialAttr{Dst: addr, SendDepth: 1, RecvDepth: 1, Arena: arena})
		return err
	}
	l.SetReject(28)
	var reject *verbs.RejectError
	if err := dial(t.Context()); !errors.As(err, &reject) || reject.Reason != 28 {
		t.Error(err)
	}
	l.SetReject(0)
	l.SetSilent(true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := dial(ctx); !errors.Is(err, verbs.ErrTimeout) {
		t.Error(err)
	}
	_ = l.Close()
	if err := dial(t.Context()); !errors.Is(err, verbs.ErrRejected) {
		t.Error(err)
	}
	if _, err := l.AcceptPeer(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestWaitingWorksInsideABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t)
		got := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		go func() {
			_, err := p.peer.Recv(ctx, make([]byte, 8))
			got <- err
		}()
		synctest.Wait()
		time.Sleep(2 * time.Hour)
		if err := <-got; !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestEverythingAtOnceFromManyGoroutinesEndsInOrder(t *testing.T) {
	p := connect(t)
	var wg sync.WaitGroup
	key, va := p.conn.Keys(p.remote).WriteKey, verbs.Addr(p.arena.Mem(p.remote))
	wg.Go(func() {
		for p.peer.Send([]byte("x")) == nil {
		}
	})
	wg.Go(func() {
		for p.peer.RDMAWrite(key, va, []byte{1}) == nil {
		}
	})
	wg.Go(func() {
		buf := make([]byte, 64)
		for {
			if _, err := p.peer.Recv(context.Background(), buf); err != nil {
				return
			}
		}
	})
	for i := range 500 {
		if i%2 == 0 && p.peer.Posted() == 0 && len(p.poll(t)) >= 0 {
			_, _ = p.conn.PostRecv([]verbs.RecvWR{{SGE: p.sge(0, 8)}})
		}
		wr := verbs.SendWR{SGE: [2]verbs.SGE{p.sge(0, 8)}, NumSGE: 1, Signaled: 1}
		_, _ = p.conn.PostSend([]verbs.SendWR{wr})
		p.poll(t)
	}
	if err := p.conn.Abort(); err != nil {
		t.Fatal(err)
	}
	p.poll(t)
	if err := p.conn.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
}

// What is written against the passive end of any provider finds it here, too.
func TestTheNetworkIsAnAcceptor(t *testing.T) {
	var acceptor verbs.Acceptor = verbstest.New()
	provider := acceptor.(verbs.Provider)
	l, err := acceptor.Listen(t.Context(), verbs.ListenAttr{
		Addr: netip.AddrPortFrom(addr.Addr(), 0), PrivateData: []byte("reply"), RecvDepth: 4, RecvSize: 64,
	})
	if err != nil || l.Addr().Port() == 0 {
		t.Fatal(l, err)
	}
	if _, err := acceptor.Listen(t.Context(), verbs.ListenAttr{Addr: l.Addr()}); err == nil {
		t.Error("one address was given twice")
	}
	arena, err := verbs.NewArena(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	defer arena.Close()
	dial := func() verbs.Conn {
		c, err := provider.Dial(t.Context(), verbs.DialAttr{
			Dst: l.Addr(), PrivateData: []byte("request"), SendDepth: 1, RecvDepth: 1, Arena: arena,
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	kept, waiting := dial(), dial()
	defer kept.Close()
	defer waiting.Close()
	far, err := l.Accept(t.Context())
	if err != nil || string(far.PrivateData()) != "request" || string(kept.PeerPrivateData()) != "reply" {
		t.Errorf("%v, %q, %q", err, far.PrivateData(), kept.PeerPrivateData())
	}
	_ = l.Close()
	if ev := <-waiting.Events(); ev.Kind != verbs.EventDisconnected {
		t.Errorf("whom nobody accepted: %+v", ev)
	}
	if len(kept.Events()) != 0 {
		t.Error("the end of the listener ended a connection that was accepted")
	}
	_ = far.Close()
	if ev := <-kept.Events(); ev.Kind != verbs.EventDisconnected {
		t.Errorf("%+v", ev)
	}
}
