//go:build cgo && linux

package rdmacore

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/verbs"
)

// The network that scripts/suite/verbs.sh lays out.
var (
	labTarget = netip.MustParseAddrPort("10.0.0.1:3260") // LIO over rxe
	labHost   = netip.MustParseAddr("10.0.0.1")
	labHost6  = netip.MustParseAddr("fd00::1")
	labClosed = netip.MustParseAddrPort("10.0.0.1:9")    // nothing listens
	labAbsent = netip.MustParseAddrPort("10.0.0.99:9")   // no such host on the link
	labDark   = netip.MustParseAddrPort("10.9.0.2:3260") // a host without RDMA, over a link with it
	labLate   = netip.MustParseAddrPort("10.9.0.9:3260") // another, once a test has given it its address
	labPlain  = netip.MustParseAddrPort("10.8.0.2:3260") // behind plain0, which has no RDMA device
)

// pageBytes is the size of each of the three parts of a peer's memory.
const pageBytes = 4096

// peer is a test's end of a connection: a remote region with a source and a sink page, and a local one for messages.
type peer struct {
	t       *testing.T
	arena   *verbs.Arena
	remote  verbs.RegionID
	local   verbs.RegionID
	conn    verbs.Conn
	nextMsg int
}

func needLab(t *testing.T) {
	t.Helper()
	if os.Getenv("ISERBLK_LAB") == "" {
		t.Skip("needs the lab: scripts/suite/verbs.sh")
	}
}

// newPeer makes a peer with memory and no connection.
func newPeer(t *testing.T) *peer {
	t.Helper()
	needLab(t)
	arena, err := verbs.NewArena(1 << 30)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, arena: arena}
	t.Cleanup(p.close)
	if p.remote, err = arena.Carve(2*pageBytes, verbs.AccessRemote); err != nil {
		t.Fatal(err)
	}
	if p.local, err = arena.Carve(16*pageBytes, verbs.AccessLocal); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *peer) close() {
	if p.conn != nil {
		if err := p.conn.Close(); err != nil {
			p.t.Error(err)
		}
	}
	if err := p.arena.Close(); err != nil {
		p.t.Error(err)
	}
}

func (p *peer) attr(dst netip.AddrPort) verbs.DialAttr {
	return verbs.DialAttr{
		Dst: dst, PrivateData: []byte{0xc0, 0, 0, 0}, RetryCount: 5, RNRRetry: 7,
		AckTimeout: 67 * time.Millisecond, SendDepth: 16, RecvDepth: 16, MaxInline: 76, Arena: p.arena,
	}
}

func (p *peer) dial(ctx context.Context, a verbs.DialAttr) error {
	provider, err := New()
	if err != nil {
		p.t.Fatal(err)
	}
	conn, err := provider.Dial(ctx, a)
	if err == nil {
		p.conn = conn
	}
	return err
}

// mustDial connects, and waits for a peer that does not listen yet and for a port that comes up.
func (p *peer) mustDial(a verbs.DialAttr) {
	p.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := p.dial(context.Background(), a)
		if err == nil {
			return
		}
		again := errors.Is(err, verbs.ErrRejected) || errors.Is(err, verbs.ErrPortDown) // a port comes up by fits and starts
		if !again || time.Now().After(end) {
			p.t.Fatal(err)
		}
	}
}

// rping starts the passive side of rdma-core's own test program: it reads from the memory that a message tells it,
// asks to go on, and writes what it has read to the memory that the next message tells it.
func (p *peer) rping(at netip.AddrPort) *exec.Cmd {
	p.t.Helper()
	cmd := exec.Command("rping", "-s", "-a", at.Addr().String(), "-p", itoa(int(at.Port())), "-S", itoa(pageBytes))
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

func (p *peer) source() []byte { return p.arena.Mem(p.remote)[:pageBytes] }
func (p *peer) sink() []byte   { return p.arena.Mem(p.remote)[pageBytes : 2*pageBytes] }

// messages are 16 receive buffers and 16 send buffers of 16 bytes.
func (p *peer) message(i int) []byte { return p.arena.Mem(p.local)[i*16 : (i+1)*16] }

// recv is a receive into message i. Its key is found by Dial, or given for later.
func (p *peer) recv(i int) verbs.RecvWR {
	wr := verbs.RecvWR{ID: uint64(i), SGE: verbs.SGE{Addr: verbs.Addr(p.message(i)), Len: 16}}
	if p.conn != nil {
		wr.SGE.LKey = p.conn.Keys(p.local).LKey
	}
	return wr
}

// tell sends rping's message: an address, its key and its size, in network order.
func (p *peer) tell(mem []byte, rkey uint32) {
	p.t.Helper()
	msg := p.message(16 + p.nextMsg%16)
	p.nextMsg++
	binary.BigEndian.PutUint64(msg, verbs.Addr(mem))
	binary.BigEndian.PutUint32(msg[8:], rkey)
	binary.BigEndian.PutUint32(msg[12:], uint32(len(mem)))
	sge := verbs.SGE{Addr: verbs.Addr(msg), Len: 16, LKey: p.conn.Keys(p.local).LKey}
	wr := []verbs.SendWR{{ID: 1000, SGE: [2]verbs.SGE{sge}, NumSGE: 1, Signaled: 1}}
	if n, err := p.conn.PostSend(wr); n != 1 || err != nil {
		p.t.Fatal(n, err)
	}
}

// poll collects n completions, in any order, sleeping on Fd in between as a lane does.
func (p *peer) poll(n int) []verbs.WC {
	p.t.Helper()
	wcs := make([]verbs.WC, n)
	end := time.Now().Add(10 * time.Second)
	for got := 0; got < n; {
		k, err := p.conn.Poll(wcs[got:])
		if err != nil {
			p.t.Fatal(err)
		}
		if got += k; k == 0 {
			p.sleep(end)
		}
	}
	return wcs
}

// sleep arms and, unless something came meanwhile, waits on Fd.
func (p *peer) sleep(end time.Time) {
	p.t.Helper()
	if time.Now().After(end) {
		p.t.Fatal("completions do not come")
	}
	if err := p.conn.Arm(); err != nil {
		p.t.Fatal(err)
	}
	readable(p.conn.Fd(), 50*time.Millisecond) // bounded: what came before Arm raises nothing
}

func readable(fd int, wait time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, _ := unix.Poll(fds, int(wait.Milliseconds()))
	return n > 0
}

// event waits for one event.
func (p *peer) event(wait time.Duration) verbs.Event {
	p.t.Helper()
	select {
	case ev := <-p.conn.Events():
		return ev
	case <-time.After(wait):
		p.t.Fatal("no event came")
		return verbs.Event{}
	}
}

// eventOf waits for an event of a kind and passes others over.
func (p *peer) eventOf(kind verbs.EventKind) verbs.Event {
	p.t.Helper()
	for {
		if ev := p.event(10 * time.Second); ev.Kind == kind {
			return ev
		}
	}
}

func run(t *testing.T, words ...string) string {
	t.Helper()
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(words, " "), err, out)
	}
	return string(out)
}

// resources counts what the kernel holds for user processes: "qp", "cq", "mr", "pd" or "cm_id".
func resources(t *testing.T, kind string) int {
	t.Helper()
	n := 0
	for line := range strings.Lines(run(t, "rdma", "resource", "show", kind)) {
		if strings.Contains(line, " pid ") {
			n++
		}
	}
	return n
}
