//go:build cgo && linux

package rdmacore

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"iserblk/verbs"
)

// listen opens a portal on a free port of the host.
func (p *peer) listen(ip netip.Addr) verbs.Listener {
	p.t.Helper()
	provider, err := New()
	if err != nil {
		p.t.Fatal(err)
	}
	l, err := provider.Listen(context.Background(), verbs.ListenAttr{
		Addr: netip.AddrPortFrom(ip, 0), PrivateData: []byte("reply"), RecvDepth: 8, RecvSize: 512,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = l.Close() })
	return l
}

// join connects both ends.
func (p *peer) join(l verbs.Listener) verbs.Peer {
	p.t.Helper()
	a := p.attr(l.Addr())
	a.PrivateData, a.Recvs = []byte("request"), []verbs.RecvWR{p.recv(0), p.recv(1), p.recv(2)}
	p.mustDial(a)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	far, err := l.Accept(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = far.Close() })
	return far
}

func TestThePassiveEndMovesDataBothWays(t *testing.T) {
	for _, ip := range []netip.Addr{labHost, labHost6} {
		p := newPeer(t)
		far := p.join(p.listen(ip))
		if !bytes.HasPrefix(p.conn.PeerPrivateData(), []byte("reply")) || !bytes.HasPrefix(far.PrivateData(), []byte("request")) {
			t.Errorf("private data: %q, %q", p.conn.PeerPrivateData(), far.PrivateData())
		}
		if far.LocalAddr() != p.conn.RemoteAddr() || far.RemoteAddr().Addr() != p.conn.LocalAddr().Addr() {
			t.Errorf("%v to %v, seen from there %v to %v", p.conn.LocalAddr(), p.conn.RemoteAddr(), far.RemoteAddr(), far.LocalAddr())
		}
		keys, big := p.conn.Keys(p.remote), pattern(pageBytes)
		if err := far.RDMAWrite(keys.WriteKey, verbs.Addr(p.sink()), big); err != nil || !bytes.Equal(p.sink(), big) {
			t.Fatalf("write: %v", err)
		}
		got := make([]byte, pageBytes)
		copy(p.source(), big[7:])
		if err := far.RDMARead(keys.ReadKey, verbs.Addr(p.source()), got); err != nil || !bytes.Equal(got, p.source()) {
			t.Fatalf("read: %v", err)
		}
		if err := far.Send(big[:10]); err != nil {
			t.Fatal(err)
		}
		if wcs := p.poll(1); ofWC(wcs, verbs.WCRecv) != 1 || wcs[0].Len != 10 {
			t.Fatalf("%+v", wcs)
		}
		if wcs := p.poll(0); len(wcs) != 0 {
			t.Fatalf("%+v", wcs)
		}
		p.tell(p.source(), keys.ReadKey)
		if n, err := far.Recv(t.Context(), got); err != nil || n == 0 {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}

func TestThePassiveEndMayBeUsedByManyAtOnce(t *testing.T) {
	p := newPeer(t)
	far := p.join(p.listen(labHost))
	keys := p.conn.Keys(p.remote)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			part := p.sink()[i*64:][:64]
			want := bytes.Repeat([]byte{byte(i + 1)}, 64)
			for range 50 {
				got := make([]byte, 64)
				if err := far.RDMAWrite(keys.WriteKey, verbs.Addr(part), want); err != nil {
					t.Error(err)
				}
				if err := far.RDMARead(keys.ReadKey, verbs.Addr(part), got); err != nil || !bytes.Equal(got, want) {
					t.Errorf("read: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

func TestAKeyThatDoesNotAllowItEndsThePassiveEnd(t *testing.T) {
	p := newPeer(t)
	far := p.join(p.listen(labHost))
	if err := far.RDMARead(p.conn.Keys(p.remote).WriteKey, verbs.Addr(p.source()), make([]byte, 8)); !errors.Is(err, verbs.StatusRemAccessErr) {
		t.Errorf("error is %v", err)
	}
	if err := far.Send([]byte("x")); err == nil {
		t.Error("a broken connection took a message")
	}
	if _, err := far.Recv(t.Context(), make([]byte, 512)); err == nil {
		t.Error("a broken connection had a message")
	}
}

func TestEitherEndMayHangUp(t *testing.T) {
	p := newPeer(t)
	l := p.listen(labHost)
	far := p.join(l)
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	if ev := <-p.conn.Events(); ev.Kind != verbs.EventDisconnected {
		t.Errorf("%+v", ev)
	}
	q := newPeer(t)
	far = q.join(l)
	waits := make(chan error)
	go func() {
		_, err := far.Recv(context.Background(), make([]byte, 512))
		waits <- err
	}()
	_ = q.conn.Close()
	if err := <-waits; err == nil {
		t.Error("a message came from nobody")
	}
	if err := far.RDMAWrite(1, 2, []byte("x")); err == nil {
		t.Error("wrote to nobody")
	}
}

func TestAListenerThatIsClosedTakesNobodyAndKeepsWhomItHas(t *testing.T) {
	p, q := newPeer(t), newPeer(t)
	l := p.listen(labHost)
	far := p.join(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := q.dial(t.Context(), q.attr(l.Addr())); !errors.Is(err, verbs.ErrRejected) {
		t.Error(err)
	}
	if err := far.Send([]byte("still there")); err != nil {
		t.Error(err)
	}
}

func TestListeningWhereThereIsNoDeviceOrAddressFails(t *testing.T) {
	p := newPeer(t)
	provider, err := New()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, at := range []string{"10.99.99.99:3260", "10.0.0.1:3260"} { // not ours; LIO has it
		l, err := provider.Listen(t.Context(), verbs.ListenAttr{Addr: netip.MustParseAddrPort(at), RecvDepth: 8, RecvSize: 512})
		if err == nil {
			_ = l.Close()
			t.Errorf("listens at %s", at)
		}
	}
}
