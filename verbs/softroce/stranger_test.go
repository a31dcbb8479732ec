package softroce

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/verbs"
	"iserblk/verbs/softroce/cm"
	"iserblk/verbs/softroce/wire"
)

// victim is a connection over a loopback address, and its memory.
type victim struct {
	*conn
	peer   *peer
	region verbs.RegionID
	mem    []byte
}

func newVictim(t *testing.T, at netip.Addr) *victim {
	t.Helper()
	p := New()
	l, err := p.Listen(t.Context(), verbs.ListenAttr{Addr: netip.AddrPortFrom(at, 0), RecvDepth: 8, RecvSize: 64})
	if err != nil {
		t.Fatal(err)
	}
	arena, err := verbs.NewArena(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = arena.Close() })
	t.Cleanup(func() { _ = l.Close() })
	region, _ := arena.Carve(1<<16, verbs.AccessRemote)
	c, err := p.Dial(t.Context(), verbs.DialAttr{
		Src: at, Dst: l.Addr(), RetryCount: 5, SendDepth: 8, RecvDepth: 8, Arena: arena,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	accepted, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = accepted.Close() })
	return &victim{conn: c.(*conn), peer: accepted.(*peer), region: region, mem: arena.Mem(region)}
}

// write has the honest peer write, while the victim's driver polls.
func (v *victim) write(t *testing.T, data []byte) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- v.peer.RDMAWrite(v.Keys(v.region).WriteKey, verbs.Addr(v.mem), data) }()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Microsecond) {
		select {
		case err := <-done:
			if err != nil || !bytes.Equal(v.mem[:len(data)], data) {
				t.Fatal("the honest peer cannot write: ", err)
			}
			return
		default:
			v.poll(t)
		}
	}
	t.Fatal("the honest peer's write does not end")
}

func (v *victim) poll(t *testing.T) {
	t.Helper()
	var wcs [4]verbs.WC
	if n, err := v.Poll(wcs[:]); n != 0 || err != nil {
		t.Fatal(wcs[:n], err)
	}
}

// forged is a packet that would write to the victim's memory if it came from the right place.
func (v *victim) forged(from netip.AddrPort, change func(*wire.Header)) []byte {
	data := bytes.Repeat([]byte{0xee}, 64)
	v.mu.Lock()
	psn := v.peer.c.qp.Config().SendPSN
	v.mu.Unlock()
	h := wire.Header{
		Opcode: wire.WriteOnly, MigReq: true, AckReq: true, PKey: wire.DefaultPKey, DestQP: v.qpn, PSN: psn.Add(1),
		VA: verbs.Addr(v.mem), RKey: v.Keys(v.region).WriteKey, Length: uint32(len(data)),
	}
	change(&h)
	pkt := append(h.Append(nil), data...)
	return wire.NewFlow(from, netip.AddrPortFrom(v.end.local, Port)).SealWhole(pkt)
}

func TestPacketsOfStrangersChangeNothing(t *testing.T) {
	at, other := netip.MustParseAddr("127.0.0.31"), netip.MustParseAddr("127.0.0.32")
	for name, row := range map[string]struct {
		from   netip.Addr
		change func(*wire.Header)
		spoil  int
	}{
		"everything right but the address": {from: other, change: func(*wire.Header) {}},
		"a wrong checksum":                 {from: at, change: func(*wire.Header) {}, spoil: 1},
		"another queue pair":               {from: at, change: func(h *wire.Header) { h.DestQP++ }},
		"another process's queue pair":     {from: at, change: func(h *wire.Header) { h.DestQP ^= 0x550000 }},
		"a packet number from afar":        {from: at, change: func(h *wire.Header) { h.PSN = h.PSN.Add(1 << 20) }},
		"another key":                      {from: at, change: func(h *wire.Header) { h.RKey ^= 1 }},
		"the key to read":                  {from: at, change: func(h *wire.Header) { h.RKey ^= 0xffff }},
		"past the end of the region":       {from: at, change: func(h *wire.Header) { h.VA += 1<<16 - 32 }},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVictim(t, at)
			v.write(t, bytes.Repeat([]byte{1}, 64))
			fd, port, err := openSender(socketAttr{local: netip.AddrPortFrom(row.from, 0)})
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			pkt := v.forged(netip.AddrPortFrom(row.from, port), row.change)
			pkt[len(pkt)-1] ^= byte(row.spoil)
			for range 20 {
				sendTo(fd, pkt, netip.AddrPortFrom(at, Port))
				v.poll(t)
			}
			time.Sleep(5 * time.Millisecond) // for the lobby
			v.poll(t)
			if bytes.Contains(v.mem, []byte{0xee}) {
				t.Fatal("memory was written")
			}
			select {
			case ev := <-v.Events():
				t.Errorf("%+v", ev)
			default:
			}
			v.write(t, bytes.Repeat([]byte{2}, 64))
		})
	}
}

// TestTheForgeryIsGood proves that the packet of the test above is one that would be taken.
func TestTheForgeryIsGood(t *testing.T) {
	at := netip.MustParseAddr("127.0.0.33")
	v := newVictim(t, at)
	v.write(t, bytes.Repeat([]byte{1}, 64))
	fd, port, err := openSender(socketAttr{local: netip.AddrPortFrom(at, 0)})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	pkt := v.forged(netip.AddrPortFrom(at, port), func(*wire.Header) {})
	sendTo(fd, pkt, netip.AddrPortFrom(at, Port))
	for end := time.Now().Add(2 * time.Second); !bytes.Contains(v.mem, []byte{0xee}); v.poll(t) {
		if time.Now().After(end) {
			t.Fatal("it was not taken")
		}
	}
}

func TestAFloodOfRequestsTakesLittle(t *testing.T) {
	at := netip.MustParseAddr("127.0.0.34")
	p := New()
	l, err := p.Listen(t.Context(), verbs.ListenAttr{Addr: netip.AddrPortFrom(at, 0), RecvDepth: 128, RecvSize: 8192})
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	files := openFiles(t)
	for i := range 200 {
		from := netip.AddrFrom4([4]byte{127, 1, 0, byte(i)})
		fd, err := openSocket(socketAttr{local: netip.AddrPortFrom(from, 0)})
		if err != nil {
			t.Fatal(err)
		}
		flood(t, fd, from, l.Addr(), 20)
		unix.Close(fd)
	}
	time.Sleep(50 * time.Millisecond)
	e := l.(*listener).end
	e.mu.Lock()
	known, connections := e.manager.Len(), len(e.byQPN)
	e.mu.Unlock()
	runtime.ReadMemStats(&after)
	if known > 64 || connections > 64 || known == 0 {
		t.Errorf("%d connections are known, %d have a queue pair", known, connections)
	}
	if n := openFiles(t) - files; n > 64*8 {
		t.Errorf("%d files were opened", n)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 128<<20 {
		t.Errorf("%d MiB", grown>>20)
	}
	_ = l.Close()
	e.forgetAll()
}

func flood(t *testing.T, fd int, from netip.Addr, to netip.AddrPort, n int) {
	t.Helper()
	sa, err := boundTo(fd)
	if err != nil || sa != from {
		t.Fatal(sa, err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(name.(*unix.SockaddrInet4).Port)
	for range n {
		req := cm.REQ{
			TID: random64(), LocalID: random32(), ServiceID: cm.ServiceID(to.Port()), GUID: random64(), QPN: random32()>>8 | 2,
			MTU: 5, Src: from, Dst: to.Addr(), ResponderResources: 1,
		}
		cm.IPHeader{Src: netip.AddrPortFrom(from, 9), Dst: to.Addr()}.Put(&req.Private)
		m := req.Encode()
		h := wire.Header{
			Opcode: wire.UDSendOnly, MigReq: true, PKey: wire.DefaultPKey, DestQP: wire.GSI, QKey: wire.GSIQKey, SrcQP: wire.GSI,
		}
		dst := netip.AddrPortFrom(to.Addr(), Port)
		sendTo(fd, wire.NewFlow(netip.AddrPortFrom(from, port), dst).SealWhole(append(h.Append(nil), m[:]...)), dst)
	}
}

// forgetAll ends connections that nobody confirms now instead of in some seconds.
func (e *endpoint) forgetAll() {
	e.mu.Lock()
	for hours := range 100 {
		e.manager.Tick(time.Now().Add(time.Duration(hours) * time.Hour))
	}
	e.settle()
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestProvidersShareAnAddress has two lobbies on one address, as two processes have: what comes to the wrong one is handed
// on.
func TestProvidersShareAnAddress(t *testing.T) {
	at := netip.MustParseAddr("127.0.0.35")
	providers := []*Provider{New(), New(), New()}
	var listeners []verbs.Listener
	for _, p := range providers {
		l, err := p.Listen(t.Context(), verbs.ListenAttr{Addr: netip.AddrPortFrom(at, 0), RecvDepth: 8, RecvSize: 64})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		listeners = append(listeners, l)
	}
	for i, p := range providers {
		for k, l := range listeners {
			t.Run(string(rune('A'+i))+" to "+string(rune('A'+k)), func(t *testing.T) { exchange(t, p, l, at) })
		}
	}
}

func exchange(t *testing.T, p *Provider, l verbs.Listener, at netip.Addr) {
	arena, err := verbs.NewArena(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer arena.Close()
	region, _ := arena.Carve(4096, verbs.AccessRemote)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := p.Dial(ctx, verbs.DialAttr{Src: at, Dst: l.Addr(), RetryCount: 5, SendDepth: 8, RecvDepth: 8, Arena: arena})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	v := &victim{conn: c.(*conn), peer: a.(*peer), region: region, mem: arena.Mem(region)}
	for i := range 20 {
		v.write(t, bytes.Repeat([]byte{byte(i)}, 4096))
	}
}

func TestAHostWithoutRoCERefusesAtOnce(t *testing.T) {
	arena, err := verbs.NewArena(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer arena.Close()
	for _, at := range []string{"127.0.0.37", "127.0.0.38"} {
		begin := time.Now()
		_, err = New().Dial(t.Context(), verbs.DialAttr{
			Src: netip.MustParseAddr("127.0.0.39"), Dst: netip.AddrPortFrom(netip.MustParseAddr(at), 3260), SendDepth: 8, RecvDepth: 8,
			Arena: arena,
		})
		if !errors.Is(err, verbs.ErrRejected) || !errors.Is(err, unix.ECONNREFUSED) || time.Since(begin) > time.Second {
			t.Errorf("%v: %v", time.Since(begin), err)
		}
	}
}
