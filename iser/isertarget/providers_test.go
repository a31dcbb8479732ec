package isertarget_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"iserblk/iser"
	"iserblk/iser/isertarget"
	"iserblk/session"
	"iserblk/session/chap"
	"iserblk/session/scsi"
	"iserblk/verbs"
	"iserblk/verbs/softroce"
	"iserblk/verbs/verbstest"
)

// both is a provider with its passive end.
type both interface {
	verbs.Provider
	verbs.Acceptor
}

// visit is one initiator at a target on some provider.
type visit struct {
	t      *testing.T
	net    both
	target *isertarget.Target
	door   *isertarget.Portal
	arena  *verbs.Arena
	buf    session.Buffer
}

func newVisit(t *testing.T, net both, at netip.AddrPort) *visit {
	t.Helper()
	v := &visit{t: t, net: net, target: isertarget.New(isertarget.Options{
		Workers: 4, CHAP: isertarget.CHAP{User: "initiator", Secret: "a secret of twelve"},
	})}
	t.Cleanup(v.target.Close)
	v.target.AddDisk(0, isertarget.DiskOptions{Blocks: 4096})
	v.door = must[*isertarget.Portal](t)(v.target.Listen(t.Context(), net, at, 1))
	v.arena = must[*verbs.Arena](t)(verbs.NewArena(64 << 20))
	region := must[verbs.RegionID](t)(v.arena.Carve(1<<20, verbs.AccessRemote))
	v.buf = session.Buffer{Mem: v.arena.Mem(region), Region: uint32(region)}
	t.Cleanup(func() { _ = v.arena.Close() })
	return v
}

func (v *visit) params() session.Params {
	p := session.Params{InitiatorName: "iqn.2026-01.test:initiator", TargetName: v.target.Name(), NOPInterval: -1}
	p.CHAP.Own = chap.Credentials{Name: "initiator", Secret: chap.NewSecret([]byte("a secret of twelve"))}
	return p
}

func (v *visit) dial(discovery bool) *iser.Conn {
	v.t.Helper()
	c := must[*iser.Conn](v.t)(iser.Dial(v.ctx(), v.net, iser.Options{
		Target: v.door.Addr(), Arena: v.arena, Discovery: discovery, AckTimeout: 20 * time.Millisecond,
	}))
	v.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (v *visit) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	v.t.Cleanup(cancel)
	return ctx
}

func (v *visit) login() *session.Nexus {
	v.t.Helper()
	return must[*session.Nexus](v.t)(session.Login(v.ctx(), v.dial(false), v.params()))
}

// move writes or reads n bytes from block 1 on.
func (v *visit) move(n *session.Nexus, dir session.Direction, size int) error {
	c := &session.Command{Dir: dir, Buf: session.Buffer{Mem: v.buf.Mem[:size], Region: v.buf.Region}}
	if dir == session.In {
		scsi.Read10(&c.CDB, 1, uint16(size/512), false)
	} else {
		scsi.Write10(&c.CDB, 1, uint16(size/512), false)
	}
	if err := session.Do(v.ctx(), n, c); err != nil {
		return err
	}
	if c.Status != scsi.StatusGood {
		return errors.New(c.Status.String())
	}
	return nil
}

func TestTheTargetIsTheSameOnEveryProvider(t *testing.T) {
	for name, c := range map[string]struct {
		net both
		at  string
	}{
		"in memory": {verbstest.New(), "10.0.0.1:3260"}, "RoCE over UDP": {softroce.New(), "127.0.0.1:0"},
		"RoCE over UDP and IPv6": {softroce.New(), "[::1]:0"},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVisit(t, c.net, netip.MustParseAddrPort(c.at))
			found, err := session.Discover(v.ctx(), v.dial(true), v.params())
			if err != nil || len(found) != 1 || found[0].Address != v.door.Addr().String() {
				t.Fatalf("discovered %v, %v", found, err)
			}
			v.io(v.login())
			v.outage()
			for _, w := range v.target.Violations() {
				t.Error(w)
			}
		})
	}
}

// io moves data of every way to move it: with the command, and by one RDMA READ or WRITE of few and many packets.
func (v *visit) io(n *session.Nexus) {
	v.t.Helper()
	for _, size := range []int{512, 8192, 12288, 131072, 1 << 20} {
		want := pattern(size, byte(size>>9))
		copy(v.buf.Mem, want)
		if err := v.move(n, session.Out, size); err != nil {
			v.t.Fatalf("write of %d bytes: %v", size, err)
		}
		clear(v.buf.Mem)
		if err := v.move(n, session.In, size); err != nil || !bytes.Equal(v.buf.Mem[:size], want) {
			v.t.Fatalf("read of %d bytes: %v", size, err)
		}
	}
}

// outage takes the portal down under a session, and brings it back.
func (v *visit) outage() {
	v.t.Helper()
	v.door.Down()
	if c, err := iser.Dial(v.ctx(), v.net, iser.Options{Target: v.door.Addr(), Arena: v.arena}); !errors.Is(err, verbs.ErrRejected) {
		_ = c.Close()
		v.t.Fatalf("a portal that is down: %v", err)
	}
	if err := v.door.Up(v.ctx()); err != nil {
		v.t.Fatal(err)
	}
	v.io(v.login())
}
