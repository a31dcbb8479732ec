package softroce_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/verbs"
	"iserblk/verbs/softroce"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// pair is both ends of a connection over a loopback address, and the memory of the end that dialled.
type pair struct {
	t        testing.TB
	provider *softroce.Provider
	listener verbs.Listener
	arena    *verbs.Arena
	local    verbs.RegionID
	remote   verbs.RegionID
	conn     verbs.Conn
	peer     verbs.Peer
	wcs      [32]verbs.WC
	sends    [1]verbs.SendWR // here, so that the test itself allocates nothing
	recvs    [1]verbs.RecvWR
	fds      [1]unix.PollFd
}

const (
	msgLen  = 256
	msgs    = 64
	dataLen = 1 << 20
)

func newPair(t testing.TB, at netip.Addr) *pair {
	t.Helper()
	p := &pair{t: t, provider: softroce.New()}
	arena, err := verbs.NewArena(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	p.arena = arena
	t.Cleanup(p.close)
	p.local, _ = arena.Carve(msgs*msgLen, verbs.AccessLocal)
	p.remote, _ = arena.Carve(dataLen, verbs.AccessRemote)
	p.listener, err = p.provider.Listen(context.Background(), verbs.ListenAttr{
		Addr: netip.AddrPortFrom(at, 0), PrivateData: []byte("welcome"), RecvDepth: 64, RecvSize: msgLen,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pair) attr() verbs.DialAttr {
	return verbs.DialAttr{
		Dst: p.listener.Addr(), PrivateData: []byte("hello"), RetryCount: 5, RNRRetry: 7, AckTimeout: 67 * time.Millisecond,
		SendDepth: 64, RecvDepth: 64, MaxInline: 76, Arena: p.arena,
	}
}

func (p *pair) connect() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var err error
	if p.conn, err = p.provider.Dial(ctx, p.attr()); err != nil {
		p.t.Fatal(err)
	}
	if p.peer, err = p.listener.Accept(ctx); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) close() {
	if p.conn != nil {
		_ = p.conn.Close()
	}
	if p.peer != nil {
		_ = p.peer.Close()
	}
	if p.listener != nil {
		_ = p.listener.Close()
	}
	_ = p.arena.Close()
}

func (p *pair) msg(i int) []byte { return p.arena.Mem(p.local)[i*msgLen : (i+1)*msgLen] }

func (p *pair) recv(i int) {
	p.t.Helper()
	p.recvs[0] = verbs.RecvWR{ID: uint64(i), SGE: verbs.SGE{Addr: verbs.Addr(p.msg(i)), Len: msgLen, LKey: p.conn.Keys(p.local).LKey}}
	if _, err := p.conn.PostRecv(p.recvs[:]); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) send(i, n int) {
	p.t.Helper()
	sge := verbs.SGE{Addr: verbs.Addr(p.msg(i)), Len: uint32(n), LKey: p.conn.Keys(p.local).LKey}
	p.sends[0] = verbs.SendWR{ID: uint64(i), SGE: [2]verbs.SGE{sge}, NumSGE: 1, Inline: 1}
	if _, err := p.conn.PostSend(p.sends[:]); err != nil {
		p.t.Fatal(err)
	}
}

// next waits for a completion as a lane does.
func (p *pair) next() verbs.WC {
	for {
		if n, err := p.conn.Poll(p.wcs[:1]); err != nil {
			p.t.Fatal(err)
		} else if n == 1 {
			return p.wcs[0]
		}
		if err := p.conn.Arm(); err != nil {
			p.t.Fatal(err)
		}
		if n, _ := p.conn.Poll(p.wcs[:1]); n == 1 {
			return p.wcs[0]
		}
		p.fds[0] = unix.PollFd{Fd: int32(p.conn.Fd()), Events: unix.POLLIN}
		if n, _ := unix.Poll(p.fds[:], 5000); n == 0 {
			p.t.Fatal("no completion within 5 s")
		}
	}
}

func TestBothEndsTalk(t *testing.T) {
	for _, at := range []netip.Addr{loopback, netip.MustParseAddr("127.0.0.2"), netip.IPv6Loopback()} {
		t.Run(at.String(), func(t *testing.T) {
			p := newPair(t, at)
			p.connect()
			if got := p.conn.PeerPrivateData(); !bytes.HasPrefix(got, []byte("welcome")) {
				t.Errorf("%q", got)
			}
			if got := p.peer.PrivateData(); !bytes.HasPrefix(got, []byte("hello")) {
				t.Errorf("%q", got)
			}
			p.recv(0)
			copy(p.msg(1), "ping")
			p.send(1, 4)
			buf := make([]byte, msgLen)
			n, err := p.peer.Recv(context.Background(), buf)
			if err != nil || string(buf[:n]) != "ping" {
				t.Fatal(n, err)
			}
			data := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
			keys, va := p.conn.Keys(p.remote), verbs.Addr(p.arena.Mem(p.remote))
			errs := make(chan error)
			go func() { errs <- p.peer.RDMAWrite(keys.WriteKey, va, data) }()
			p.drive(errs)
			back := make([]byte, len(data))
			go func() { errs <- p.peer.RDMARead(keys.ReadKey, va, back) }()
			p.drive(errs)
			if !bytes.Equal(back, data) || !bytes.Equal(p.arena.Mem(p.remote)[:len(data)], data) {
				t.Error("other bytes")
			}
			go func() { errs <- p.peer.Send([]byte("pong")) }()
			if wc := p.next(); wc.Status != 0 || wc.Op != verbs.WCRecv || string(p.msg(0)[:wc.Len]) != "pong" {
				t.Errorf("%+v", wc)
			}
			p.drive(errs)
		})
	}
}

// drive polls until the other end's operation is done.
func (p *pair) drive(errs chan error) {
	p.t.Helper()
	for {
		select {
		case err := <-errs:
			if err != nil {
				p.t.Fatal(err)
			}
			return
		default:
			if n, err := p.conn.Poll(p.wcs[:]); n != 0 || err != nil {
				p.t.Fatal(n, err)
			}
		}
	}
}

// serve answers each message by writing size bytes and sending a response, as a target answers a read.
func serve(p *pair, size int, va uint64, key uint32) {
	data, buf := make([]byte, size), make([]byte, msgLen)
	for {
		if _, err := p.peer.Recv(context.Background(), buf); err != nil {
			return
		}
		if p.peer.RDMAWrite(key, va, data) != nil || p.peer.Send(buf[:76]) != nil {
			return
		}
	}
}

// BenchmarkRead is a target's answer to reads: a command, the data by RDMA WRITE and a response, one at a time. It prints
// the median latency and the throughput.
func BenchmarkRead(b *testing.B) {
	for _, size := range []int{4 << 10, 128 << 10} {
		b.Run(fmt.Sprintf("%dk-QD1", size>>10), func(b *testing.B) {
			p := newPair(b, loopback)
			p.connect()
			go serve(p, size, verbs.Addr(p.arena.Mem(p.remote)), p.conn.Keys(p.remote).WriteKey)
			p.recv(0)
			took := make([]time.Duration, 0, 1<<20)
			for b.Loop() {
				begin := time.Now()
				p.send(1, 76)
				if wc := p.next(); wc.Status != 0 {
					b.Fatal(wc.Status)
				}
				p.recv(0)
				took = append(took, time.Since(begin))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "us-median")
			b.ReportMetric(float64(size)*8*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "Gb/s")
		})
	}
}

func TestNothingIsAllocatedPerPacket(t *testing.T) {
	p := newPair(t, loopback)
	p.connect()
	const size = 128 << 10
	go serve(p, size, verbs.Addr(p.arena.Mem(p.remote)), p.conn.Keys(p.remote).WriteKey)
	p.recv(0)
	allocs := testing.AllocsPerRun(200, func() { // 35 packets and their acknowledgements
		p.send(1, 76)
		if wc := p.next(); wc.Status != 0 {
			t.Fatal(wc.Status)
		}
		p.recv(0)
	})
	if allocs > 0 {
		t.Errorf("%v allocations for each read of %d bytes", allocs, size)
	}
}
