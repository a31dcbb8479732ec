package isertarget_test

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"iserblk/iser"
	"iserblk/iser/isertarget"
	"iserblk/session"
	"iserblk/session/chap"
	"iserblk/session/pdu"
	"iserblk/session/scsi"
	"iserblk/verbs"
	"iserblk/verbs/verbstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a target with one portal and an initiator's memory.
type bed struct {
	t      *testing.T
	net    *verbstest.Net
	door   *isertarget.Portal
	portal *verbstest.Listener // the same, as verbs see it
	target *isertarget.Target
	disk   *isertarget.Disk
	arena  *verbs.Arena
	region verbs.RegionID
}

var portalAddr = netip.MustParseAddrPort("10.0.0.1:3260")

func newBed(t *testing.T, o isertarget.Options, d isertarget.DiskOptions) *bed {
	t.Helper()
	b := &bed{t: t, net: verbstest.New(), target: isertarget.New(o)}
	b.disk = b.target.AddDisk(0, d)
	var err error
	if b.door, err = b.target.Listen(t.Context(), b.net, portalAddr, 1); err != nil {
		t.Fatal(err)
	}
	b.portal = b.net.At(portalAddr)
	if b.arena, err = verbs.NewArena(64 << 20); err != nil {
		t.Fatal(err)
	}
	if b.region, err = b.arena.Carve(1<<20, verbs.AccessRemote); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.target.Close()
		if err := b.arena.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// buf is a part of the remotely accessible region.
func (b *bed) buf(off, n int) session.Buffer {
	return session.Buffer{Mem: b.arena.Mem(b.region)[off : off+n], Region: uint32(b.region)}
}

func (b *bed) dial() *iser.Conn {
	b.t.Helper()
	dm, err := iser.Dial(b.ctx(), b.net, iser.Options{Target: portalAddr, Arena: b.arena})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = dm.Close() })
	return dm
}

func (b *bed) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	b.t.Cleanup(cancel)
	return ctx
}

func (b *bed) params() session.Params {
	return session.Params{
		InitiatorName: "iqn.2026-01.test:initiator", TargetName: b.target.Name(), ISID: pdu.NewISID(1, 1),
		NOPInterval: -1,
	}
}

func (b *bed) login() *session.Nexus {
	b.t.Helper()
	n, err := session.Login(b.ctx(), b.dial(), b.params())
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// do runs one command to its end.
func (b *bed) do(n *session.Nexus, c *session.Command) {
	b.t.Helper()
	if err := session.Do(b.ctx(), n, c); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) noViolations() {
	b.t.Helper()
	if v := b.target.Violations(); len(v) > 0 {
		b.t.Errorf("the initiator broke the protocol: %q", v)
	}
}

func read(b *bed, lba uint32, n int) *session.Command {
	c := &session.Command{Dir: session.In, Buf: b.buf(0, n)}
	scsi.Read10(&c.CDB, lba, uint16(n/512), false)
	return c
}

func write(b *bed, lba uint32, n int) *session.Command {
	c := &session.Command{Dir: session.Out, Buf: b.buf(0, n)}
	scsi.Write10(&c.CDB, lba, uint16(n/512), false)
	return c
}

func TestWhatIsWrittenIsReadBackInEverySizeWithAndWithoutImmediateData(t *testing.T) {
	for _, immediate := range []bool{true, false} {
		b := newBed(t, isertarget.Options{NoImmediateData: !immediate}, isertarget.DiskOptions{})
		n := b.login()
		for _, size := range []int{512, 1024, 4096, 8192, 8704, 65536, 131072} {
			want := pattern(size, byte(size>>9))
			copy(b.buf(0, size).Mem, want)
			b.do(n, write(b, 3, size))
			if got := b.disk.ReadAt(3*512, size); !bytes.Equal(got, want) {
				t.Fatalf("%d bytes, immediate data %v: the target has something else", size, immediate)
			}
			clear(b.buf(0, size).Mem)
			b.do(n, read(b, 3, size))
			if !bytes.Equal(b.buf(0, size).Mem, want) {
				t.Fatalf("%d bytes, immediate data %v: something else came back", size, immediate)
			}
		}
		wantImmediate := immediate
		sent := slices.ContainsFunc(b.target.Commands(), func(c isertarget.Command) bool { return c.Immediate > 0 })
		if sent != wantImmediate {
			t.Errorf("immediate data was sent: %v, want %v", sent, wantImmediate)
		}
		if err := session.Logout(b.ctx(), n); err != nil {
			t.Error(err)
		}
		b.noViolations()
	}
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7) ^ byte(i>>8) ^ seed
	}
	return b
}

func TestLoginWithCHAPInBothDirectionsAndEveryAlgorithm(t *testing.T) {
	for algorithm := 5; algorithm <= 8; algorithm++ {
		b := newBed(t, isertarget.Options{CHAP: isertarget.CHAP{
			User: "initiator", Secret: "a secret of twelve", MutualUser: "target", MutualSecret: "another secret",
			Algorithms: []int{algorithm},
		}}, isertarget.DiskOptions{})
		p := b.params()
		p.CHAP = chap.Config{
			Own:    chap.Credentials{Name: "initiator", Secret: chap.NewSecret([]byte("a secret of twelve"))},
			Target: chap.Credentials{Name: "target", Secret: chap.NewSecret([]byte("another secret"))},
		}
		n, err := session.Login(b.ctx(), b.dial(), p)
		if err != nil {
			t.Fatalf("algorithm %d: %v", algorithm, err)
		}
		if got := int(n.Negotiated().Algorithm); got != algorithm {
			t.Errorf("algorithm %d was used, want %d", got, algorithm)
		}
		b.noViolations()
	}
}
