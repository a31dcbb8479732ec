package multipath_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"iserblk/internal/block"
	"iserblk/iser/isertarget"
	"iserblk/session/multipath"
	"iserblk/session/pdu"
	"iserblk/session/scsi"
	"iserblk/verbs"
)

// cutOf kills the connection of one way.
func (b *bed) cutOf(w *way) { w.path.Cut(errors.New("cut by the test")) }

func (b *bed) resets() int {
	n := 0
	for _, r := range b.target.Log() {
		if r.Op == pdu.OpTMFRequest && r.Task.Function == pdu.TMLogicalUnitReset {
			n++
		}
	}
	return n
}

// A write that is given up while its old copy may still run must not be followed by writes on other lanes: they would
// be undone.
func TestAWriteThatWasGivenUpIsFencedBeforeOtherLanesWrite(t *testing.T) {
	const limit = 150 * time.Millisecond
	b := newBed(t, setting{lanes: 2, noPath: limit, target: isertarget.Options{Vendor: "LIO-ORG"}})
	b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(1, isOp(opWrite16), isertarget.ParkPulled())})
	ghost := b.begin(block.Write, 0, 0, 512, pattern(1, 512))
	if _, err := b.target.WaitParked(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	b.cutOf(b.ways[0]) // the login in its place waits for the parked write, as with LIO
	if errno := b.end(ghost); errno != syscall.EIO {
		t.Fatalf("the write ended with %v", errno)
	}
	other, want := b.ways[1], pattern(2, 512)
	if _, errno := other.read(0, 512); errno != 0 {
		t.Fatalf("a read: %v", errno)
	}
	x := other.begin(block.Write, 0, 0, 512, want)
	time.Sleep(limit / 3)
	if n := len(b.target.Commands(opWrite16)); n != 1 {
		t.Fatalf("%d writes before the fence", n)
	}
	b.target.Release(nil) // the ghost lands, and the login is answered
	if errno := other.end(x); errno != 0 {
		t.Fatalf("after the fence: %v", errno)
	}
	if !bytes.Equal(b.disk.ReadAt(0, 512), want) {
		t.Fatal("a write that had failed undid a later one")
	}
}

func TestWritesDoNotWaitForAFenceForEver(t *testing.T) {
	const limit = 100 * time.Millisecond
	b := newBed(t, setting{lanes: 2, noPath: limit})
	b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(1, isOp(opWrite16), isertarget.ParkPulled())})
	b.begin(block.Write, 0, 0, 512, pattern(1, 512))
	if _, err := b.target.WaitParked(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	b.portal.SetReject(8)
	b.cutOf(b.ways[0])
	time.Sleep(2 * limit)
	other := b.ways[1]
	if errno := other.write(4096, pattern(2, 512)); errno != syscall.EIO {
		t.Fatalf("got %v", errno)
	}
	if _, errno := other.read(4096, 512); errno != 0 {
		t.Fatalf("a read: %v", errno)
	}
	b.target.Release(nil)
	b.portal.SetReject(0)
	b.eventually("the fence", func() bool { return other.write(4096, pattern(2, 512)) == 0 })
}

// A lane whose own nexus lives must not wait for ever for a unit that another lane has found to be a different one.
func TestEveryLaneGivesUpOnAQuarantinedUnitAndComesBack(t *testing.T) {
	b := newBed(t, setting{lanes: 2, noPath: 100 * time.Millisecond})
	serial := b.disk.Serial
	b.disk.SetSerial("0000remapped")
	b.cutOf(b.ways[0])
	b.eventually("quarantine", func() bool {
		return b.unit.State() == multipath.UnitQuarantined && b.path.Status().State == multipath.StateUp
	})
	for i, w := range b.ways {
		if _, errno := w.read(0, 512); errno != syscall.EIO {
			t.Fatalf("lane %d: %v", i, errno)
		}
	}
	b.disk.SetSerial(serial)
	b.cutOf(b.ways[0])
	b.eventually("the unit's return", func() bool { return b.unit.State() == multipath.UnitServing })
	for i, w := range b.ways {
		b.eventually("service", func() bool { _, errno := w.read(0, 512); return errno == 0 })
		if w.path.Status().State != multipath.StateUp {
			t.Fatalf("lane %d: %+v", i, w.path.Status())
		}
	}
}

func TestWhatWaitsForAQuarantinedUnitIsServedOnItsReturn(t *testing.T) {
	b := newBed(t, setting{lanes: 2})
	serial := b.disk.Serial
	b.disk.SetSerial("0000remapped")
	b.cutOf(b.ways[0])
	b.eventually("quarantine", func() bool {
		return b.unit.State() == multipath.UnitQuarantined && b.path.Status().State == multipath.StateUp
	})
	x, y := b.ways[0].begin(block.Read, 0, 0, 512, nil), b.ways[1].begin(block.Read, 0, 0, 512, nil)
	b.disk.SetSerial(serial)
	b.cutOf(b.ways[0])
	if first, second := b.ways[0].end(x), b.ways[1].end(y); first != 0 || second != 0 {
		t.Fatalf("got %v and %v", first, second)
	}
}

func TestARequestThatEndsEveryNexusDoesNotGoRoundForEver(t *testing.T) {
	b := newBed(t, setting{noPath: 200 * time.Millisecond})
	b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(-1, isOp(opRead16), isertarget.Disconnect())})
	start := time.Now()
	if _, errno := b.read(0, 512); errno != syscall.EIO {
		t.Fatalf("got %v", errno)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Fatalf("it took %v", took)
	}
	if errno := b.write(0, pattern(1, 512)); errno != 0 {
		t.Fatalf("another request: %v", errno)
	}
}

// The same ISID is another nexus in another portal group: a login there replaces nothing.
func TestALoginInAnotherPortalGroupIsNoFence(t *testing.T) {
	b := newBed(t, setting{target: isertarget.Options{Vendor: "LIO-ORG"}})
	second := must(b.target.Listen(t.Context(), b.net, netip.MustParseAddrPort("10.0.0.2:3260"), 2))
	old, next := pattern(1, 512), pattern(2, 512)
	b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(1, isOp(opWrite16), isertarget.ParkPulled())})
	x := b.begin(block.Write, 0, 0, 512, old)
	if _, err := b.target.WaitParked(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	b.portal.SetReject(8)
	other := second.Addr()
	b.door.Store(&other)
	b.cut()
	if errno := b.end(x); errno != 0 {
		t.Fatal(errno)
	}
	if errno := b.write(0, next); errno != 0 {
		t.Fatal(errno)
	}
	b.target.Release(nil)
	if !bytes.Equal(b.disk.ReadAt(0, 512), next) {
		t.Fatal("a write of the dead nexus landed on newer data")
	}
	if b.resets() != 1 {
		t.Fatalf("%d resets", b.resets())
	}
	// Back in its own group, the login alone is the fence again.
	b.cutOf(b.way)
	b.eventually("another session", func() bool { return b.path.Status().Losses == 2 && b.path.Status().State == multipath.StateUp })
	if b.resets() != 1 {
		t.Fatalf("%d resets after a login in the same group", b.resets())
	}
}

// A target that maps another volume to a LUN says so on a nexus that lives on: REPORTED LUNS DATA HAS CHANGED.
func TestAUnitThatIsReplacedUnderALivingNexusGetsNothing(t *testing.T) {
	for name, code := range map[string][2]uint8{"luns changed": {0x3f, 0x0e}, "inquiry changed": {0x3f, 0x03}} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, setting{noPath: 300 * time.Millisecond})
			b.disk.SetSerial("0000remapped")
			b.target.Attention(0, code[0], code[1])
			before := b.disk.ReadAt(0, 512)
			if errno := b.write(0, pattern(5, 512)); errno != syscall.EIO {
				t.Fatalf("got %v", errno)
			}
			if n := len(b.target.Commands(opWrite16)); n != 1 || !bytes.Equal(b.disk.ReadAt(0, 512), before) {
				t.Fatalf("%d writes were sent, the first got the news", n)
			}
			if b.unit.State() != multipath.UnitQuarantined {
				t.Fatalf("state %v", b.unit.State())
			}
		})
	}
}

// Without a volatile cache the kernel never flushes; a unit that gets one later would lose what was acknowledged.
func TestAUnitThatGetsAWriteCacheIsQuarantined(t *testing.T) {
	b := newBed(t, setting{noPath: 200 * time.Millisecond})
	b.target.AddDisk(0, isertarget.DiskOptions{WriteCache: true, Serial: b.disk.Serial})
	b.cut()
	if errno := b.write(0, pattern(5, 512)); errno != syscall.EIO {
		t.Fatalf("got %v", errno)
	}
	if b.unit.State() != multipath.UnitQuarantined {
		t.Fatalf("state %v", b.unit.State())
	}
}

func TestAUnitWithRequestsInFlightIsNotForgotten(t *testing.T) {
	b := newBed(t, setting{})
	b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(1, isOp(opRead16), isertarget.Park())})
	x := b.begin(block.Read, 0, 0, 512, nil)
	if _, err := b.target.WaitParked(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := b.path.RemoveUnit(t.Context(), b.unit); !errors.Is(err, multipath.ErrInFlight) {
		t.Fatalf("got %v", err)
	}
	b.target.Release(nil)
	if errno := b.end(x); errno != 0 {
		t.Fatal(errno)
	}
	if err := b.path.RemoveUnit(t.Context(), b.unit); err != nil {
		t.Fatal(err)
	}
}

// While the device has not given every work request back, it may still write to their memory.
func TestNothingEndsOrGoesOnBeforeTheDeviceHasLetGo(t *testing.T) {
	b := newBed(t, setting{target: isertarget.Options{EarlyReinstatement: true}})
	b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(1, isOp(opRead16), isertarget.Park())})
	x := b.begin(block.Read, 0, 0, 512, nil)
	if _, err := b.target.WaitParked(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	peer := b.portal.Peers()[0]
	peer.HoldFlush(true)
	peer.Kill(verbs.StatusRetryExc)
	b.cutOf(b.way)
	time.Sleep(100 * time.Millisecond)
	if len(x.errno) != 0 || len(b.target.Commands(opRead16)) != 1 {
		t.Fatal("a request whose buffer was still with the device was ended or sent again")
	}
	peer.HoldFlush(false)
	if errno := b.end(x); errno != 0 {
		t.Fatal(errno)
	}
}

// Stop must end whatever the path is doing at the moment.
func TestStopEndsInBoundedTime(t *testing.T) {
	for name, prepare := range map[string]func(*bed){
		"up":        func(*bed) {},
		"just lost": func(b *bed) { b.cut() },
		"refused": func(b *bed) {
			b.portal.SetReject(8)
			b.cut()
			time.Sleep(20 * time.Millisecond)
		},
		"no answer to the connection": func(b *bed) {
			b.portal.SetBlackhole(true)
			b.cutOf(b.way)
			time.Sleep(20 * time.Millisecond)
		},
		"no answer to a check": func(b *bed) {
			b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(-1, isOp(opInquiry), isertarget.Ignore())})
			b.cut()
			b.eventually("the check", func() bool { return len(b.target.Commands(opInquiry)) > 0 })
		},
		"no answer to the fence": func(b *bed) {
			b.target.SetHooks(isertarget.Hooks{TaskManagement: func(isertarget.Function) isertarget.TaskAction {
				return isertarget.TaskAction{Ignore: true}
			}})
			b.cut()
			b.eventually("the fence", func() bool { return b.resets() > 0 })
		},
		"no answer to the logout":      func(b *bed) { b.portal.SetBlackhole(true) },
		"work that does not come back": func(b *bed) { b.portal.Peers()[0].HoldFlush(true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, setting{})
			prepare(b)
			start := time.Now()
			b.unit.Fail()
			b.path.Stop()
			if took := time.Since(start); took > 7*time.Second {
				t.Errorf("it took %v", took)
			}
			if s := b.path.Status().State; s != multipath.StateClosed {
				t.Errorf("state %v", s)
			}
			b.portal.SetBlackhole(false)
		})
	}
}

// Fail, loss and return may come in any order; each request ends once.
func TestFailDuringTheReturnOfThePath(t *testing.T) {
	for range 20 {
		b := newBed(t, setting{noPath: -1})
		var all []*result
		b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(3, isOp(opWrite16), isertarget.Answer(scsi.StatusBusy))})
		for i := range depth {
			all = append(all, b.begin(block.Write, 0, uint64(i)*512, 512, pattern(byte(i), 512)))
		}
		var failed atomic.Bool
		meet := func(*multipath.Link) {
			if failed.CompareAndSwap(false, true) {
				go b.unit.Fail()
			}
		}
		b.meet.Store(&meet)
		b.cut()
		for _, x := range all {
			if errno := b.end(x); errno != 0 && errno != syscall.EIO {
				t.Fatal(errno)
			}
		}
		if slices.ContainsFunc(all, func(x *result) bool { return len(x.errno) > 0 }) {
			t.Fatal("a request ended twice")
		}
		b.close()
	}
}

func TestWhileAliveEndsWithTheConnection(t *testing.T) {
	gone := errors.New("gone")
	lost := make(chan error, 1)
	err := multipath.WhileAlive(t.Context(), lost, func(ctx context.Context) error {
		lost <- gone
		<-ctx.Done()
		return ctx.Err()
	})
	if err != gone {
		t.Errorf("got %v", err)
	}
	close(lost)
	if err := multipath.WhileAlive(t.Context(), lost, func(ctx context.Context) error { return ctx.Err() }); err != nil {
		t.Errorf("got %v", err)
	}
}
