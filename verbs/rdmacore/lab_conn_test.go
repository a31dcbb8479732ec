//go:build cgo && linux

package rdmacore

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"iserblk/verbs"
)

func itoa(n int) string { return strconv.Itoa(n) }

func ofWC(wcs []verbs.WC, op verbs.WCOp) (n int) {
	for _, wc := range wcs {
		if wc.Status == verbs.StatusSuccess && wc.Op == op {
			n++
		}
	}
	return n
}

// testEcho has rping read a page of ours and write it to another.
func testEcho(t *testing.T, at netip.AddrPort) {
	p := newPeer(t)
	p.rping(at)
	a := p.attr(at)
	a.Recvs = []verbs.RecvWR{p.recv(0), p.recv(1)}
	p.mustDial(a)
	for i := range pageBytes - 1 {
		p.source()[i] = byte(i%255 + 1) // rping writes back what it reads up to the first zero
	}
	keys := p.conn.Keys(p.remote)
	p.tell(p.source(), keys.ReadKey)
	wcs := p.poll(2)
	if ofWC(wcs, verbs.WCSend) != 1 || ofWC(wcs, verbs.WCRecv) != 1 {
		t.Fatalf("after the read: %+v", wcs)
	}
	p.tell(p.sink(), keys.WriteKey)
	if wcs = p.poll(2); ofWC(wcs, verbs.WCSend) != 1 || ofWC(wcs, verbs.WCRecv) != 1 {
		t.Fatalf("after the write: %+v", wcs)
	}
	if !bytes.Equal(p.source(), p.sink()) {
		t.Error("what was written is not what was read")
	}
}

func TestAPeerReadsAndWritesOurMemory(t *testing.T) {
	testEcho(t, netip.AddrPortFrom(labHost, 7001))
}

func TestAPeerReadsAndWritesOurMemoryOverIPv6(t *testing.T) {
	testEcho(t, netip.AddrPortFrom(labHost6, 7002))
}

func TestAKeyWorksInOneDirectionOnly(t *testing.T) {
	for name, pick := range map[string]func(verbs.Keys) uint32{
		"the key for writing lets nobody read": func(k verbs.Keys) uint32 { return k.WriteKey },
		"the local key lets nobody in":         func(k verbs.Keys) uint32 { return k.LKey + 1 },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t)
			at := netip.AddrPortFrom(labHost, 7003)
			p.rping(at)
			a := p.attr(at)
			a.Recvs = []verbs.RecvWR{p.recv(0)}
			p.mustDial(a)
			p.tell(p.source(), pick(p.conn.Keys(p.remote)))
			for _, wc := range p.poll(2) {
				if wc.Status == verbs.StatusSuccess && wc.Op == verbs.WCRecv {
					t.Error("the peer could read")
				}
			}
		})
	}
}

func TestTheKeyForReadingLetsNobodyWrite(t *testing.T) {
	p := newPeer(t)
	at := netip.AddrPortFrom(labHost, 7004)
	p.rping(at)
	a := p.attr(at)
	a.Recvs = []verbs.RecvWR{p.recv(0), p.recv(1)}
	p.mustDial(a)
	copy(p.source(), "new")
	copy(p.sink(), "old")
	keys := p.conn.Keys(p.remote)
	p.tell(p.source(), keys.ReadKey)
	p.poll(2)
	p.tell(p.sink(), keys.ReadKey)
	if ofWC(p.poll(2), verbs.WCRecv) != 0 || !bytes.HasPrefix(p.sink(), []byte("old")) {
		t.Error("the peer could write")
	}
}

func TestAConnectionKnowsItsEndsAndItsDevice(t *testing.T) {
	p := newPeer(t)
	a := p.attr(labTarget)
	a.Src, a.TOS = labHost, 104
	p.mustDial(a)
	if p.conn.RemoteAddr() != labTarget || p.conn.LocalAddr().Addr() != labHost || p.conn.LocalAddr().Port() == 0 {
		t.Errorf("from %v to %v", p.conn.LocalAddr(), p.conn.RemoteAddr())
	}
	d := p.conn.Device()
	if d.Name != "rxe_d0" || d.Port != 1 || d.NetDev != "d0" || d.Addr != labHost || !d.Active || d.PathMTU != 4096 {
		t.Errorf("%+v", d)
	}
	if p.conn.MaxInline() < 76 {
		t.Errorf("%d bytes inline", p.conn.MaxInline())
	}
	if b := p.conn.PeerPrivateData(); len(b) < 4 || b[0]&0x80 == 0 {
		t.Errorf("LIO's private data: % x", b)
	}
}

func TestAbortFlushesAllThatIsPosted(t *testing.T) {
	p := newPeer(t)
	p.mustDial(p.attr(labTarget))
	var recvs []verbs.RecvWR
	for i := range 16 {
		recvs = append(recvs, p.recv(i))
	}
	if n, err := p.conn.PostRecv(recvs); n != 16 || err != nil {
		t.Fatal(n, err)
	}
	begin := time.Now()
	if err := errors.Join(p.conn.Abort(), p.conn.Abort()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("aborting took %v", took)
	}
	seen := make(map[uint64]bool)
	for _, wc := range p.poll(16) {
		if wc.Status != verbs.StatusFlushed {
			t.Errorf("%+v", wc)
		}
		seen[wc.ID] = true
	}
	if len(seen) != 16 {
		t.Errorf("%d receives came back", len(seen))
	}
}

func TestACompletionMakesFdReadableOnceAfterArm(t *testing.T) {
	p := newPeer(t)
	p.mustDial(p.attr(labTarget))
	if readable(p.conn.Fd(), 0) {
		t.Error("readable before anything")
	}
	for round := range 3 {
		if err := errors.Join(p.conn.Arm(), p.conn.Arm()); err != nil {
			t.Fatal(err)
		}
		if readable(p.conn.Fd(), 20*time.Millisecond) {
			t.Fatalf("round %d: readable too early", round)
		}
		if round == 2 {
			break
		}
		p.completeOne(round)
		if !readable(p.conn.Fd(), 5*time.Second) {
			t.Fatalf("round %d: never readable", round)
		}
		p.poll(1)
	}
}

// completeOne makes a completion: a receive that is flushed. The first call breaks the connection, the later ones
// post on the broken one.
func (p *peer) completeOne(round int) {
	p.t.Helper()
	sge := verbs.SGE{Addr: verbs.Addr(p.message(0)), Len: 16, LKey: p.conn.Keys(p.local).LKey}
	if round == 0 {
		if err := p.conn.Abort(); err != nil {
			p.t.Fatal(err)
		}
	}
	wr := []verbs.SendWR{{ID: 5, SGE: [2]verbs.SGE{sge}, NumSGE: 1, Signaled: 1}}
	if _, err := p.conn.PostSend(wr); err != nil {
		p.t.Fatal(err)
	}
}

func TestSyncRegistersNewRegionsAndDropsReleasedOnes(t *testing.T) {
	p := newPeer(t)
	p.mustDial(p.attr(labTarget))
	first := p.conn
	p.mustDial(p.attr(labTarget))
	second := p.conn
	t.Cleanup(func() { first.Close() })
	before := resources(t, "mr")
	id, err := p.arena.Carve(1<<20, verbs.AccessRemote)
	if err != nil {
		t.Fatal(err)
	}
	if first.Keys(id) != (verbs.Keys{}) {
		t.Error("keys before Sync")
	}
	if err := first.Sync(); err != nil {
		t.Fatal(err)
	}
	k := first.Keys(id)
	if k.LKey == 0 || k.ReadKey == 0 || k.WriteKey == 0 || k.ReadKey == k.WriteKey {
		t.Errorf("%+v", k)
	}
	if second.Keys(id) != k {
		t.Error("the second connection of the arena does not know the keys")
	}
	if n := resources(t, "mr"); n != before+2 {
		t.Errorf("%d memory regions became %d", before, n)
	}
	p.arena.Release(id)
	if err := second.Sync(); err != nil {
		t.Fatal(err)
	}
	if first.Keys(id) != (verbs.Keys{}) || resources(t, "mr") != before {
		t.Error("the region is still registered")
	}
}

func TestAClosedConnectionRefusesEverythingAndClosesAgain(t *testing.T) {
	p := newPeer(t)
	p.mustDial(p.attr(labTarget))
	if _, err := p.conn.PostRecv([]verbs.RecvWR{p.recv(0)}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.conn.Close(), p.conn.Close(), p.conn.Abort()); err != nil {
		t.Error(err)
	}
	_, err := p.conn.Poll(make([]verbs.WC, 1))
	for _, err := range []error{err, p.conn.Arm(), p.conn.Sync()} {
		if !errors.Is(err, verbs.ErrClosed) {
			t.Error(err)
		}
	}
	if _, open := <-p.conn.Events(); open {
		t.Error("events after Close")
	}
}

func TestTheDataPathOfADeviceDoesNotAllocate(t *testing.T) {
	p := newPeer(t)
	p.mustDial(p.attr(labTarget))
	wcs := make([]verbs.WC, 16)
	recv := []verbs.RecvWR{p.recv(0)}
	allocs := testing.AllocsPerRun(15, func() { // one warm-up: 16 receives in all
		if _, err := p.conn.PostRecv(recv); err != nil {
			t.Fatal(err)
		}
		_, _ = p.conn.Poll(wcs)
		_ = p.conn.Arm()
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestHundredsOfConnectionsLeaveNothingBehind(t *testing.T) {
	p := newPeer(t)
	cycle := func() {
		p.mustDial(p.attr(labTarget))
		if err := p.conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cycle() // opens what stays open, the device's context
	kinds := []string{"qp", "cq", "mr", "pd", "cm_id"}
	before := make(map[string]int)
	for _, k := range kinds {
		before[k] = resources(t, k)
	}
	fds, routines := openFiles(t), runtime.NumGoroutine()
	begin := time.Now()
	for range 300 {
		cycle()
	}
	t.Logf("%v a cycle", time.Since(begin)/300)
	if n := openFiles(t); n > fds {
		t.Errorf("%d descriptors became %d", fds, n)
	}
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > routines && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // the last one may be ending still
	}
	if n := runtime.NumGoroutine(); n > routines {
		t.Errorf("%d goroutines became %d", routines, n)
	}
	for _, k := range kinds {
		if n := resources(t, k); n > before[k] {
			t.Errorf("%d of %s became %d", before[k], k, n)
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestConnectionsCanBeMadeAndClosedAtTheSameTime(t *testing.T) {
	p := newPeer(t)
	provider, err := New()
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan error)
	for range 4 {
		go func() {
			var errs []error
			for range 10 {
				c, err := provider.Dial(context.Background(), p.attr(labTarget))
				if err == nil {
					err = c.Close()
				}
				errs = append(errs, err)
			}
			results <- errors.Join(errs...)
		}()
	}
	for range 4 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}
