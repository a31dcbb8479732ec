package isertarget_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"iserblk/iser"
	"iserblk/iser/isertarget"
	"iserblk/session"
	"iserblk/session/chap"
	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

// fetch runs a command that reads n bytes at most and returns what came.
func (b *bed) fetch(n *session.Nexus, size int, build func(cdb *[scsi.CDBLen]byte)) []byte {
	b.t.Helper()
	c := &session.Command{Dir: session.In, Buf: b.buf(0, size)}
	build(&c.CDB)
	b.do(n, c)
	if c.Status != scsi.StatusGood {
		b.t.Fatalf("%v, %v", c.Status, c.Sense)
	}
	return c.Buf.Mem[:size-int(c.Short)]
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestAUnitDescribesItselfAsItWasMade(t *testing.T) {
	b := newBed(t, isertarget.Options{ALUA: true}, isertarget.DiskOptions{
		Blocks: 1000, BlockSize: 4096, PhysicalExponent: 1, Serial: "serial-0", WriteCache: true,
		MaxTransfer: 256, OptimalTransfer: 64, ReadOnly: true,
	})
	n := b.login()
	vpd := func(page uint8) []byte {
		return b.fetch(n, 255, func(cdb *[16]byte) { scsi.InquiryVPD(cdb, page, 255) })
	}
	inq := must[scsi.StandardInquiry](t)(scsi.ParseInquiry(b.fetch(n, 96, func(cdb *[16]byte) { scsi.Inquiry(cdb, 96) })))
	if !inq.Present() || inq.TPGS != 1 || inq.Vendor != "ISERTEST" {
		t.Errorf("%+v", inq)
	}
	if s := must[string](t)(scsi.ParseUnitSerial(vpd(0x80))); s != "serial-0" {
		t.Errorf("serial %q", s)
	}
	ids := must[[]scsi.Designator](t)(scsi.ParseDeviceID(vpd(0x83)))
	if lu, ok := scsi.LUDesignator(ids); !ok || lu.Type != scsi.DesignatorNAA {
		t.Errorf("%v", ids)
	}
	if group, port, ok := scsi.PortGroupOf(ids); !ok || group != 1 || port != 1 {
		t.Errorf("group %d, port %d, %v", group, port, ok)
	}
	limits := must[scsi.BlockLimits](t)(scsi.ParseBlockLimits(vpd(0xb0)))
	if limits.MaxTransfer != 256 || limits.OptimalTransfer != 64 || limits.MaxUnmapDescriptors == 0 {
		t.Errorf("%+v", limits)
	}
	if p := must[scsi.Provisioning](t)(scsi.ParseProvisioning(vpd(0xb2))); !p.Unmap || !p.ReadZeroes {
		t.Errorf("%+v", p)
	}
	want := scsi.Capacity{Blocks: 1000, BlockSize: 4096, PhysicalExponent: 1, Thin: true, ReadZeroes: true}
	got := must[scsi.Capacity](t)(scsi.ParseCapacity16(b.fetch(n, 32, func(cdb *[16]byte) { scsi.ReadCapacity16(cdb, 32) })))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	mode := must[scsi.Mode](t)(scsi.ParseMode10(b.fetch(n, 64, func(cdb *[16]byte) { scsi.ModeSense10(cdb, scsi.PageCaching, 64) })))
	if diff := cmp.Diff(scsi.Mode{WriteProtect: true, DPOFUA: true, WriteCache: true}, mode); diff != "" {
		t.Error(diff)
	}
	groups := must[[]scsi.PortGroup](t)(scsi.ParsePortGroups(b.fetch(n, 64, func(cdb *[16]byte) { scsi.ReportTargetPortGroups(cdb, 64) })))
	if diff := cmp.Diff([]scsi.PortGroup{{ID: 1, Ports: []uint16{1}}}, groups); diff != "" {
		t.Error(diff)
	}
	b.noViolations()
}

func TestReportLUNsListsEveryDisk(t *testing.T) {
	b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{})
	b.target.AddDisk(7, isertarget.DiskOptions{})
	b.target.AddDisk(300, isertarget.DiskOptions{})
	luns, _, err := scsi.ParseReportLUNs(b.fetch(b.login(), 512, func(cdb *[16]byte) { scsi.ReportLUNs(cdb, 512) }))
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, l := range luns {
		n, _ := l.Int()
		got = append(got, n)
	}
	if diff := cmp.Diff([]int{0, 7, 300}, got); diff != "" {
		t.Error(diff)
	}
}

func TestDiscoveryFindsEveryPortal(t *testing.T) {
	b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{})
	if _, err := b.target.Listen(b.ctx(), b.net, netip.MustParseAddrPort("[fd00::1]:3260"), 2); err != nil {
		t.Fatal(err)
	}
	dm, err := iser.Dial(b.ctx(), b.net, iser.Options{Target: portalAddr, Arena: b.arena, Discovery: true})
	if err != nil {
		t.Fatal(err)
	}
	defer dm.Close()
	got, err := session.Discover(b.ctx(), dm, b.params())
	if err != nil {
		t.Fatal(err)
	}
	want := []session.Portal{
		{TargetName: b.target.Name(), Address: "10.0.0.1:3260", Group: 1},
		{TargetName: b.target.Name(), Address: "[fd00::1]:3260", Group: 2},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	b.noViolations()
}

func TestDiscoveryNeedsASecretOnlyWhereThatIsAskedFor(t *testing.T) {
	for _, asks := range []bool{false, true} {
		b := newBed(t, isertarget.Options{CHAP: isertarget.CHAP{User: "u", Secret: "the right secret", Discovery: asks}}, isertarget.DiskOptions{})
		dm := must[*iser.Conn](t)(iser.Dial(b.ctx(), b.net, iser.Options{Target: portalAddr, Arena: b.arena, Discovery: true}))
		defer dm.Close()
		if _, err := session.Discover(b.ctx(), dm, b.params()); errors.Is(err, session.ErrAuth) != asks {
			t.Errorf("asked for a secret: %v, error is %v", asks, err)
		}
	}
}

func TestLoginIsRefusedWithTheRightStatus(t *testing.T) {
	secret := isertarget.CHAP{User: "u", Secret: "the right secret"}
	for name, c := range map[string]struct {
		options isertarget.Options
		hooks   isertarget.Hooks
		change  func(*session.Params)
		want    error
	}{
		"wrong name": {change: func(p *session.Params) { p.TargetName = "iqn.other" }, want: session.ErrTargetNotFound},
		"no credentials": {
			options: isertarget.Options{CHAP: secret}, change: func(*session.Params) {}, want: session.ErrAuth,
		},
		"wrong secret": {
			options: isertarget.Options{CHAP: secret},
			change: func(p *session.Params) {
				p.CHAP.Own = chap.Credentials{Name: "u", Secret: chap.NewSecret([]byte("the wrong secret"))}
			},
			want: session.ErrAuth,
		},
		"no resources": {
			hooks:  isertarget.Hooks{Login: func(isertarget.Login) pdu.LoginStatus { return pdu.LoginOutOfResources }},
			change: func(*session.Params) {}, want: session.ErrTargetUnavailable,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, c.options, isertarget.DiskOptions{})
			b.target.SetHooks(c.hooks)
			p := b.params()
			c.change(&p)
			if _, err := session.Login(b.ctx(), b.dial(), p); !errors.Is(err, c.want) {
				t.Errorf("error is %v, want %v", err, c.want)
			}
		})
	}
}

func TestLoginTextMayComeInPieces(t *testing.T) {
	b := newBed(t, isertarget.Options{MaxLoginSegment: 40}, isertarget.DiskOptions{})
	n := b.login()
	if n.Negotiated().TargetRecvDataSegmentLength != 8192 || !n.Negotiated().ImmediateData {
		t.Errorf("%+v", n.Negotiated())
	}
	b.noViolations()
}

func TestOnlySyncedOrForcedWritesSurviveAPowerLoss(t *testing.T) {
	b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{WriteCache: true})
	n := b.login()
	put := func(lba uint32, v byte, fua bool) {
		c := write(b, lba, 512)
		scsi.Write10(&c.CDB, lba, 1, fua)
		for i := range c.Buf.Mem {
			c.Buf.Mem[i] = v
		}
		b.do(n, c)
	}
	put(0, 1, false)
	sync := &session.Command{}
	scsi.SynchronizeCache10(&sync.CDB, 0, 0)
	b.do(n, sync)
	put(0, 2, false)
	put(1, 3, true)
	put(2, 4, false)
	b.disk.PowerLoss()
	for lba, want := range []byte{1, 3, 0} {
		if got := b.disk.ReadAt(lba*512, 1)[0]; got != want {
			t.Errorf("block %d has %d after the power loss, want %d", lba, got, want)
		}
	}
	if c := b.target.Commands(0x2a); len(c) != 4 || c[0].FUA() || !c[2].FUA() {
		t.Errorf("%+v", c)
	}
}

func TestUnmapAndWriteSameZeroTheirBlocks(t *testing.T) {
	b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{})
	n := b.login()
	b.disk.WriteAt(0, bytes.Repeat([]byte{0xff}, 16*512))
	list := scsi.AppendUnmapList(b.buf(0, 64).Mem[:0], scsi.Extent{LBA: 1, Blocks: 2}, scsi.Extent{LBA: 5, Blocks: 1})
	unmap := &session.Command{Dir: session.Out, Buf: b.buf(0, len(list))}
	scsi.Unmap(&unmap.CDB, uint16(len(list)))
	b.do(n, unmap)
	same := &session.Command{Dir: session.Out, Buf: b.buf(0, 512)}
	clear(same.Buf.Mem)
	scsi.WriteSame16(&same.CDB, 8, 3, false, false)
	b.do(n, same)
	none := &session.Command{}
	scsi.WriteSame16(&none.CDB, 12, 1, true, true)
	b.do(n, none)
	var got []int
	for lba := range 16 {
		if b.disk.ReadAt(lba*512, 1)[0] == 0 {
			got = append(got, lba)
		}
	}
	if diff := cmp.Diff([]int{1, 2, 5, 8, 9, 10, 12}, got); diff != "" {
		t.Error(diff)
	}
	b.noViolations()
}

func TestPlannedAnswersReachTheInitiator(t *testing.T) {
	b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{ReadOnly: true})
	n := b.login()
	isRead := func(c isertarget.Command) bool { return c.Op() == 0x28 }
	b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(2, isRead, isertarget.Answer(scsi.StatusBusy))})
	for _, want := range []scsi.Status{scsi.StatusBusy, scsi.StatusBusy, scsi.StatusGood} {
		c := read(b, 0, 512)
		b.do(n, c)
		if c.Status != want {
			t.Errorf("status %v, want %v", c.Status, want)
		}
	}
	b.target.Attention(0, 0x2a, 0x09)
	for _, want := range []scsi.SenseKey{scsi.KeyUnitAttention, scsi.KeyNoSense} {
		c := read(b, 0, 512)
		b.do(n, c)
		if c.Sense.Key != want {
			t.Errorf("sense %v, want %v", c.Sense, want)
		}
	}
	w := write(b, 0, 512)
	b.do(n, w)
	if w.Sense.Key != scsi.KeyDataProtect {
		t.Errorf("write to a read-only unit: %v", w.Sense)
	}
	b.target.SetAccess(1, scsi.AccessStandby)
	c := read(b, 0, 512)
	b.do(n, c)
	if c.Sense.Key != scsi.KeyNotReady || c.Sense.ASC != 0x04 || c.Sense.ASCQ != 0x0b {
		t.Errorf("read through a standby port: %v", c.Sense)
	}
}

func TestOverdueCommandIsAbortedAndNeverRuns(t *testing.T) {
	for name, action := range map[string]isertarget.Action{
		"parked": isertarget.Park(), "with its data": isertarget.ParkPulled(), "delayed": isertarget.Delay(time.Hour),
		"ignored": isertarget.Ignore(),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{})
			n := b.login()
			b.target.SetHooks(isertarget.Hooks{Command: func(isertarget.Command) isertarget.Action { return action }})
			c := write(b, 0, 512)
			copy(c.Buf.Mem, "ghost")
			c.Expiry = 10 * time.Millisecond
			if err := session.Do(b.ctx(), n, c); !errors.Is(err, session.ErrAborted) {
				t.Fatal(err)
			}
			if b.target.Release(nil) != 0 {
				t.Error("an aborted command was still parked")
			}
			if got := b.disk.ReadAt(0, 5); !bytes.Equal(got, make([]byte, 5)) {
				t.Errorf("the medium has %q", got)
			}
			b.noViolations()
		})
	}
}

// lost submits a write that the target parks, kills the connection and waits until the nexus is dead.
func (b *bed) lost(action isertarget.Action) {
	b.t.Helper()
	n := b.login()
	b.target.SetHooks(isertarget.Hooks{Command: func(isertarget.Command) isertarget.Action { return action }})
	c := write(b, 0, 65536)
	copy(c.Buf.Mem, "ghost")
	go func() {
		if _, err := b.target.WaitParked(context.Background(), 1); err == nil {
			b.target.Conns()[0].Close()
		}
	}()
	c.Expiry = 200 * time.Millisecond
	if err := session.Do(b.ctx(), n, c); err == nil {
		b.t.Fatal("the write succeeded")
	}
	n.Abandon()
	b.target.SetHooks(isertarget.Hooks{})
}

func TestReinstatementWaitsForTheCommandsOfTheOldSession(t *testing.T) {
	b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{})
	b.lost(isertarget.ParkPulled())
	p := b.params()
	p.LoginTimeout = 100 * time.Millisecond
	if _, err := session.Login(b.ctx(), b.dial(), p); !errors.Is(err, session.ErrTimeout) {
		t.Fatalf("login while a write of the old session is held: %v", err)
	}
	if b.target.Release(nil) != 1 {
		t.Fatal("nothing was parked")
	}
	if string(b.disk.ReadAt(0, 5)) != "ghost" {
		t.Error("a write whose data had been fetched did not reach the medium")
	}
	b.login()
}

func TestEarlyReinstatementLetsAnOldWriteOvertakeTheNewSession(t *testing.T) {
	b := newBed(t, isertarget.Options{EarlyReinstatement: true}, isertarget.DiskOptions{})
	b.lost(isertarget.ParkPulled())
	n := b.login()
	c := write(b, 0, 512)
	copy(c.Buf.Mem, "fresh")
	b.do(n, c)
	b.target.Release(nil)
	if string(b.disk.ReadAt(0, 5)) != "ghost" {
		t.Error("the old write did not land: this target cannot show the hazard it is made for")
	}
}

func TestAWriteWhoseDataWasNotFetchedDiesWithItsConnection(t *testing.T) {
	b := newBed(t, isertarget.Options{EarlyReinstatement: true}, isertarget.DiskOptions{})
	b.lost(isertarget.Park())
	b.target.Release(nil)
	if !bytes.Equal(b.disk.ReadAt(0, 5), make([]byte, 5)) {
		t.Error("it reached the medium")
	}
}

func TestUnitResetEndsCommandsOfEverySession(t *testing.T) {
	b := newBed(t, isertarget.Options{EarlyReinstatement: true}, isertarget.DiskOptions{})
	b.lost(isertarget.ParkPulled())
	n := b.login()
	if err := session.ResetLogicalUnit(b.ctx(), n, scsi.LUN{}); err != nil {
		t.Fatal(err)
	}
	if b.target.Release(nil) != 0 || string(b.disk.ReadAt(0, 5)) == "ghost" {
		t.Error("a write survived the reset")
	}
}

func TestPingsAreAnsweredBothWays(t *testing.T) {
	b := newBed(t, isertarget.Options{}, isertarget.DiskOptions{})
	p := b.params()
	p.NOPInterval = time.Millisecond
	n, err := session.Login(b.ctx(), b.dial(), p)
	if err != nil {
		t.Fatal(err)
	}
	b.target.Ping(true)
	b.target.Ping(false)
	for deadline := time.Now().Add(5 * time.Second); b.target.Pongs() == 0 || n.Stats().Pings == 0; {
		n.Poll()
		n.Tick(time.Now())
		n.Flush()
		if time.Now().After(deadline) {
			t.Fatal("no answer")
		}
		time.Sleep(time.Millisecond)
	}
	if n.Cause() != nil || b.target.Pongs() != 1 {
		t.Error(n.Cause(), b.target.Pongs())
	}
	b.noViolations()
}
