package multipath_test

import (
	"bytes"
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
)

// pattern is n bytes that no other seed gives.
func pattern(seed byte, n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = seed ^ byte(i*7) ^ byte(i>>8)
	}
	return out
}

const (
	opInquiry   = 0x12
	opWrite16   = 0x8a
	opRead16    = 0x88
	opSync16    = 0x91
	opWriteSame = 0x93
	opUnmap     = 0x42
)

func isOp(op byte) func(isertarget.Command) bool {
	return func(c isertarget.Command) bool { return c.Op() == op }
}

func TestEveryOperationReachesTheDisk(t *testing.T) {
	b := newBed(t, setting{disk: isertarget.DiskOptions{Blocks: 4096, WriteCache: true}})
	want := pattern(1, maxTransfer)
	if errno := b.do(block.Write, block.FUA, 4096, maxTransfer, want); errno != 0 {
		t.Fatal(errno)
	}
	if got, errno := b.read(4096, maxTransfer); errno != 0 || !bytes.Equal(got, want) {
		t.Fatalf("read back: %v, equal %v", errno, bytes.Equal(got, want))
	}
	for _, op := range []block.Op{block.Flush, block.Discard, block.WriteZeroes} {
		length := uint64(8192)
		if op == block.Flush {
			length = 0
		}
		if errno := b.do(op, 0, 8192, length, nil); errno != 0 {
			t.Fatalf("%v: %v", op, errno)
		}
	}
	if got := b.disk.ReadAt(8192, 8192); !bytes.Equal(got, make([]byte, 8192)) {
		t.Fatal("zeroed range is not zero")
	}
	if got := b.disk.ReadAt(4096, 4096); !bytes.Equal(got, want[:4096]) {
		t.Fatal("the range before the zeroed one changed")
	}
	if got := b.disk.ReadAt(16384, 4096); !bytes.Equal(got, want[12288:16384]) {
		t.Fatal("the range after the zeroed one changed")
	}
	w := b.target.Commands(opWrite16)
	if len(w) != 1 || !w[0].FUA() || len(b.target.Commands(opSync16)) != 1 || len(b.target.Commands(opUnmap)) != 1 ||
		len(b.target.Commands(opWriteSame)) != 1 {
		t.Fatalf("commands seen: %v", b.target.Commands())
	}
}

func TestConditionsThatPassAreNotSeenAbove(t *testing.T) {
	sense := func(key scsi.SenseKey, asc, ascq uint8) isertarget.Action {
		return isertarget.Check(scsi.Sense{Key: key, ASC: asc, ASCQ: ascq})
	}
	for name, action := range map[string]isertarget.Action{
		"busy":                   isertarget.Answer(scsi.StatusBusy),
		"task set full":          isertarget.Answer(scsi.StatusTaskSetFull),
		"task aborted":           isertarget.Answer(scsi.StatusTaskAborted),
		"reset attention":        sense(scsi.KeyUnitAttention, 0x29, 0),
		"capacity changed":       sense(scsi.KeyUnitAttention, 0x2a, 9),
		"luns changed":           sense(scsi.KeyUnitAttention, 0x3f, 0xe),
		"becoming ready":         sense(scsi.KeyNotReady, 4, 1),
		"access state changing":  sense(scsi.KeyNotReady, 4, 0xa),
		"aborted by the target":  sense(scsi.KeyAbortedCommand, 0x4b, 0),
		"connection disappeared": isertarget.Disconnect(),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, setting{})
			b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(5, isOp(opWrite16), action)})
			want := pattern(9, 4096)
			if errno := b.write(0, want); errno != 0 {
				t.Fatal(errno)
			}
			if !bytes.Equal(b.disk.ReadAt(0, 4096), want) {
				t.Fatal("not on the disk")
			}
		})
	}
}

func TestFinalErrorsKeepTheirMeaning(t *testing.T) {
	for _, c := range []struct {
		name  string
		sense scsi.Sense
		want  syscall.Errno
	}{
		{"medium error", scsi.Sense{Key: scsi.KeyMediumError, ASC: 0x11}, syscall.ENODATA},
		{"space exhausted", scsi.Sense{Key: scsi.KeyDataProtect, ASC: 0x27, ASCQ: 7}, syscall.ENOSPC},
		{"write protected", scsi.Sense{Key: scsi.KeyDataProtect, ASC: 0x27}, syscall.EREMOTEIO},
		{"unsupported", scsi.Sense{Key: scsi.KeyIllegalRequest, ASC: 0x20}, syscall.EOPNOTSUPP},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t, setting{})
			b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(-1, isOp(opWrite16), isertarget.Check(c.sense))})
			if errno := b.write(0, pattern(1, 512)); errno != c.want {
				t.Fatalf("got %v, want %v", errno, c.want)
			}
			if n := len(b.target.Commands(opWrite16)); n != 1 {
				t.Fatalf("sent %d times", n)
			}
		})
	}
}

func TestADeferredErrorFailsTheNextFlushOnce(t *testing.T) {
	b := newBed(t, setting{disk: isertarget.DiskOptions{WriteCache: true}})
	b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(1, isOp(opRead16),
		isertarget.Check(scsi.Sense{Deferred: true, Key: scsi.KeyMediumError, ASC: 0x0c}))})
	if _, errno := b.read(0, 512); errno != 0 {
		t.Fatal(errno)
	}
	if errno := b.do(block.Flush, 0, 0, 0, nil); errno != syscall.EIO {
		t.Fatalf("first flush: %v", errno)
	}
	if errno := b.do(block.Flush, 0, 0, 0, nil); errno != 0 {
		t.Fatalf("second flush: %v", errno)
	}
}

func TestARequestInMemoryThatNoDeviceKnowsFailsAlone(t *testing.T) {
	b := newBed(t, setting{})
	known := b.data.Region
	for range 3 {
		b.data.Region = 9999
		if _, errno := b.read(0, 4096); errno != syscall.EIO {
			t.Fatalf("read: %v", errno)
		}
		if errno := b.write(0, pattern(3, 512)); errno != syscall.EIO {
			t.Fatalf("write: %v", errno)
		}
		b.data.Region = known
		if errno := b.write(0, pattern(3, 512)); errno != 0 {
			t.Fatalf("beside it: %v", errno)
		}
	}
	if n := len(b.portal.Peers()); n != 1 {
		t.Errorf("%d connections were made", n)
	}
}

func TestAShortReadIsNeverPassedOn(t *testing.T) {
	b := newBed(t, setting{})
	b.disk.WriteAt(0, pattern(3, 4096))
	var short atomic.Int32
	short.Store(2)
	b.target.SetHooks(isertarget.Hooks{Message: func(m isertarget.Message) [][]byte {
		if m.Opcode() == pdu.OpSCSIResponse && short.Add(-1) >= 0 {
			m.Bytes = slices.Clone(m.Bytes)
			m.BHS()[1] |= 0x02 // underflow
			m.BHS()[47] = 100
		}
		return [][]byte{m.Bytes}
	}})
	got, errno := b.read(0, 4096)
	if errno != 0 || !bytes.Equal(got, pattern(3, 4096)) {
		t.Fatalf("after two short reads: %v", errno)
	}
	short.Store(1 << 20)
	if _, errno := b.read(0, 4096); errno != syscall.EIO {
		t.Fatalf("always short: %v", errno)
	}
}

func TestWritesInFlightSurviveALostNexus(t *testing.T) {
	b := newBed(t, setting{disk: isertarget.DiskOptions{Blocks: 4096}})
	b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(depth, isOp(opWrite16), isertarget.Park())})
	var all []*result
	for i := range depth {
		all = append(all, b.begin(block.Write, 0, uint64(i)*maxTransfer, maxTransfer, pattern(byte(i), maxTransfer)))
	}
	if _, err := b.target.WaitParked(t.Context(), depth); err != nil {
		t.Fatal(err)
	}
	b.target.SetHooks(isertarget.Hooks{})
	b.cut()
	b.target.Release(func(isertarget.Command) bool { return true })
	for i, x := range all {
		if errno := b.end(x); errno != 0 {
			t.Fatalf("write %d: %v", i, errno)
		}
	}
	for i := range depth {
		if !bytes.Equal(b.disk.ReadAt(i*maxTransfer, maxTransfer), pattern(byte(i), maxTransfer)) {
			t.Fatalf("write %d is not on the disk", i)
		}
	}
	if s := b.path.Status(); s.State != multipath.StateUp || s.Losses != 1 {
		t.Fatalf("path: %+v", s)
	}
}

// The old copy of a write may still run at a target that does not wait for it at login. No write may be sent again
// before the reset that ends it was answered.
func TestNoWriteIsSentAgainBeforeTheFence(t *testing.T) {
	b := newBed(t, setting{target: isertarget.Options{EarlyReinstatement: true}})
	old, next := pattern(1, 512), pattern(2, 512)
	var ghost atomic.Bool
	ghost.Store(true)
	hold := make(chan struct{})
	b.target.SetHooks(isertarget.Hooks{
		Command: func(c isertarget.Command) isertarget.Action {
			if c.Op() == opWrite16 && ghost.CompareAndSwap(true, false) {
				return isertarget.ParkPulled()
			}
			return isertarget.Execute()
		},
		TaskManagement: func(isertarget.Function) isertarget.TaskAction { return isertarget.TaskAction{Hold: hold} },
	})
	x := b.begin(block.Write, 0, 0, 512, old)
	if _, err := b.target.WaitParked(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	b.cut()
	b.eventually("the reset", func() bool {
		return slices.ContainsFunc(b.target.Log(), func(r isertarget.Record) bool {
			return r.Op == pdu.OpTMFRequest && r.Task.Function == pdu.TMLogicalUnitReset
		})
	})
	time.Sleep(20 * time.Millisecond)
	if n := len(b.target.Commands(opWrite16)); n != 1 {
		t.Fatalf("%d writes before the fence", n)
	}
	close(hold)
	if errno := b.end(x); errno != 0 {
		t.Fatal(errno)
	}
	if errno := b.write(0, next); errno != 0 {
		t.Fatal(errno)
	}
	b.target.Release(func(isertarget.Command) bool { return true })
	time.Sleep(20 * time.Millisecond)
	if !bytes.Equal(b.disk.ReadAt(0, 512), next) {
		t.Fatal("a write of the dead nexus landed on newer data")
	}
}

func TestWithoutAPathRequestsEndWithEIOInTime(t *testing.T) {
	const limit = 300 * time.Millisecond
	b := newBed(t, setting{noPath: limit})
	b.portal.SetReject(8)
	b.cut()
	start := time.Now()
	if errno := b.write(0, pattern(1, 512)); errno != syscall.EIO {
		t.Fatalf("got %v", errno)
	}
	if took := time.Since(start); took < limit/2 {
		t.Fatalf("gave up after %v", took)
	}
	if errno := b.write(0, pattern(1, 512)); errno != syscall.EIO {
		t.Fatalf("a later one: %v", errno)
	}
	if !b.path.Status().GaveUp {
		t.Error("status does not say that requests fail")
	}
	b.portal.SetReject(0)
	b.eventually("the path's return", func() bool { return b.path.Status().State == multipath.StateUp })
	if b.path.Status().GaveUp {
		t.Error("status says that requests fail although the path is back")
	}
	if errno := b.write(0, pattern(2, 512)); errno != 0 {
		t.Fatalf("after the return: %v", errno)
	}
}

func TestAnotherUnitAtTheSameLUNGetsNothing(t *testing.T) {
	b := newBed(t, setting{noPath: 500 * time.Millisecond})
	b.disk.SetSerial("0000remapped")
	before := b.disk.ReadAt(0, 512)
	b.cut()
	if errno := b.write(0, pattern(5, 512)); errno != syscall.EIO {
		t.Fatalf("got %v", errno)
	}
	if b.unit.State() != multipath.UnitQuarantined {
		t.Fatalf("state %v", b.unit.State())
	}
	if len(b.target.Commands(opWrite16)) != 0 || !bytes.Equal(b.disk.ReadAt(0, 512), before) {
		t.Fatal("a write was sent to a unit that was never attached")
	}
}

func TestAnOverdueCommandIsAbortedAndRepeated(t *testing.T) {
	b := newBed(t, setting{command: 100 * time.Millisecond})
	b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(1, isOp(opRead16), isertarget.Park())})
	b.disk.WriteAt(0, pattern(7, 512))
	got, errno := b.read(0, 512)
	if errno != 0 || !bytes.Equal(got, pattern(7, 512)) {
		t.Fatalf("got %v", errno)
	}
	if s := b.path.Status(); s.Losses != 0 {
		t.Fatalf("the nexus was lost %d times for a slow command", s.Losses)
	}
}

func TestAUnitThatIsFailedGivesEverythingBack(t *testing.T) {
	b := newBed(t, setting{noPath: -1})
	b.portal.SetReject(8)
	b.cut()
	x := b.begin(block.Write, 0, 0, 512, pattern(1, 512))
	time.Sleep(20 * time.Millisecond)
	b.unit.Fail()
	if errno := b.end(x); errno != syscall.EIO {
		t.Fatalf("got %v", errno)
	}
}
