package iser_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"iserblk/iser"
	"iserblk/session"
	"iserblk/session/pdu"
	"iserblk/session/scsi"
	"iserblk/verbs"
	"iserblk/verbs/rdmacore"
)

// live is a target that really exists: ISERBLK_LIVE_PORTAL=10.0.0.1:3260 and ISERBLK_LIVE_TARGET=iqn... name it. Its
// LUN 0, or that of ISERBLK_LIVE_LUN, is overwritten. Without them these tests are skipped; scripts/suite/iser.sh runs
// them against LIO and tgt.
type live struct {
	t        *testing.T
	provider verbs.Provider
	portal   netip.AddrPort
	target   string
	lun      scsi.LUN
	arena    *verbs.Arena
	region   verbs.RegionID
}

func newLive(t *testing.T) *live {
	t.Helper()
	l := &live{t: t, target: os.Getenv("ISERBLK_LIVE_TARGET")}
	if os.Getenv("ISERBLK_LIVE_PORTAL") == "" {
		t.Skip("ISERBLK_LIVE_PORTAL is not set")
	}
	l.portal = netip.MustParseAddrPort(os.Getenv("ISERBLK_LIVE_PORTAL"))
	number, _ := strconv.Atoi(os.Getenv("ISERBLK_LIVE_LUN")) // 0 when it is not set
	var err error
	if l.lun, err = scsi.LUNFromInt(number); err != nil {
		t.Fatal(err)
	}
	if l.provider, err = rdmacore.New(); err != nil {
		t.Fatal(err)
	}
	if l.arena, err = verbs.NewArena(32 << 20); err != nil {
		t.Fatal(err)
	}
	if l.region, err = l.arena.Carve(4<<20, verbs.AccessRemote); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.arena.Close() })
	return l
}

func (l *live) buf(off, n int) session.Buffer {
	return session.Buffer{Mem: l.arena.Mem(l.region)[off : off+n], Region: uint32(l.region)}
}

func (l *live) dial(discovery bool) *iser.Conn {
	l.t.Helper()
	begin := time.Now()
	c, err := iser.Dial(l.t.Context(), l.provider, iser.Options{Target: l.portal, Arena: l.arena, Discovery: discovery})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Logf("connected in %v: %+v", time.Since(begin), c.Info())
	l.t.Cleanup(func() {
		begin := time.Now()
		if err := c.Close(); err != nil {
			l.t.Error(err)
		}
		l.t.Logf("closed in %v", time.Since(begin))
	})
	return c
}

// liveName is the initiator that tgt has to know.
const liveName = "iqn.2026-01.test:live"

// reinstating is how long a target may take to end what the session before was doing, LIO on a slow machine: it gives a
// login that waits for that up after 15 s, so it takes several.
const reinstating = 90 * time.Second

func (l *live) params() session.Params {
	return session.Params{
		InitiatorName: liveName, TargetName: l.target, ISID: pdu.NewISID(0x17e, 1),
	}
}

func (l *live) login(change func(*session.Params)) *session.Nexus {
	l.t.Helper()
	p := l.params()
	change(&p)
	for begin := time.Now(); ; {
		c := l.dial(false)
		n, err := session.Login(l.t.Context(), c, p)
		if err == nil {
			l.t.Logf("logged in in %v", time.Since(begin))
			return n
		}
		if time.Since(begin) > reinstating {
			l.t.Fatal(err)
		}
		l.t.Logf("after %v: %v", time.Since(begin), err)
		if err := c.Close(); err != nil {
			l.t.Fatal(err)
		}
	}
}

// transfer writes or reads blocks of LUN 0.
func (l *live) transfer(n *session.Nexus, dir session.Direction, lba uint32, buf session.Buffer) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
	c := &session.Command{LUN: l.lun, Dir: dir, Buf: buf}
	build := scsi.Read10
	if dir == session.Out {
		build = scsi.Write10
	}
	build(&c.CDB, lba, uint16(len(buf.Mem)/512), false)
	for {
		if err := session.Do(ctx, n, c); err != nil {
			l.t.Fatal(err)
		}
		if c.Sense.Key != scsi.KeyUnitAttention {
			break
		}
	}
	if c.Status != scsi.StatusGood || c.Short != 0 {
		l.t.Fatalf("%v, %v, %d bytes short", c.Status, c.Sense, c.Short)
	}
}

func TestLiveDiscoveryNamesTheTarget(t *testing.T) {
	l := newLive(t)
	portals, err := session.Discover(t.Context(), l.dial(true), l.params())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range portals {
		if p.TargetName == l.target {
			return
		}
	}
	t.Errorf("%q is not among %v", l.target, portals)
}

func TestLiveDataComesBackInEverySize(t *testing.T) {
	l := newLive(t)
	for _, noImmediate := range []bool{false, true} {
		n := l.login(func(p *session.Params) { p.NoImmediateData = noImmediate })
		t.Logf("%+v", n.Negotiated())
		for i, size := range []int{512, 1024, 4096, 8192, 8704, 65536, 512 << 10} { // tgt takes no more
			w, r := l.buf(0, size), l.buf(2<<20, size)
			for k := range w.Mem {
				w.Mem[k] = byte(k*31+k>>9) ^ byte(i)
			}
			clear(r.Mem)
			l.transfer(n, session.Out, 40, w)
			l.transfer(n, session.In, 40, r)
			if !bytes.Equal(w.Mem, r.Mem) {
				t.Errorf("%d bytes came back changed, no immediate data: %v", size, noImmediate)
			}
		}
		s := n.Stats()
		if (s.ImmediateBytes != 0) != n.Negotiated().ImmediateData {
			t.Errorf("%d bytes of immediate data", s.ImmediateBytes)
		}
		if err := session.Logout(t.Context(), n); err != nil {
			t.Error(err)
		}
	}
}

// busy keeps commands in flight: reads and writes of one size, each with a buffer and blocks of its own.
type busy struct {
	n    *session.Nexus
	todo int
	out  int
	bad  int
}

func (b *busy) CommandDone(c *session.Command) {
	b.out--
	if c.Err != nil || c.Status != scsi.StatusGood && c.Sense.Key != scsi.KeyUnitAttention {
		b.bad++
	}
	if b.todo > 0 && c.Err == nil {
		b.submit(c)
	}
}

func (b *busy) submit(c *session.Command) {
	b.todo--
	b.out++
	b.n.Submit(c)
}

func (l *live) start(n *session.Nexus, depth, todo int) *busy {
	b := &busy{n: n, todo: todo}
	for i := range depth {
		c := &session.Command{
			LUN: l.lun, Dir: session.Direction(1 + i%2), Done: b, Buf: l.buf(i*8192, 4096<<(i%4/2)),
		}
		if c.Dir == session.In {
			scsi.Read10(&c.CDB, uint32(i*64), uint16(len(c.Buf.Mem)/512), false)
		} else {
			scsi.Write10(&c.CDB, uint32(i*64), uint16(len(c.Buf.Mem)/512), false)
		}
		b.submit(c)
	}
	n.Flush()
	return b
}

// until drives n as a lane does.
func (l *live) until(n *session.Nexus, done func() bool) {
	l.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !done(); {
		n.Poll()
		n.Tick(time.Now())
		n.Flush()
		if time.Now().After(deadline) {
			l.t.Fatalf("hangs: %+v, %v", n.Stats(), n.Cause())
		}
	}
}

func TestLiveManyCommandsAtOnce(t *testing.T) {
	l := newLive(t)
	n := l.login(func(*session.Params) {})
	begin := time.Now()
	b := l.start(n, 100, 5000)
	l.until(n, func() bool { return b.out == 0 })
	t.Logf("5000 commands in %v, %+v", time.Since(begin), n.Stats())
	if b.bad != 0 || n.Cause() != nil {
		t.Errorf("%d failed, %v", b.bad, n.Cause())
	}
	if err := session.Logout(t.Context(), n); err != nil {
		t.Error(err)
	}
}

func TestLiveAbortUnderLoadDrainsAndTheNextLoginWorks(t *testing.T) {
	l := newLive(t)
	for range 10 {
		n := l.login(func(*session.Params) {})
		b := l.start(n, 100, 1<<30)
		l.until(n, func() bool { s := n.Stats(); return s.Completed > 200 && s.Outstanding > 10 })
		outstanding := n.Stats().Outstanding
		begin := time.Now()
		n.ConnectionLost(errors.New("the test says so"))
		l.until(n, func() bool { return b.out == 0 })
		t.Logf("%d outstanding commands drained in %v", outstanding, time.Since(begin))
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	n := l.login(func(*session.Params) {})
	if err := session.Logout(t.Context(), n); err != nil {
		t.Error(err)
	}
}
