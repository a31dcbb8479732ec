package multipath_test

import (
	"bytes"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"iserblk/internal/block"
	"iserblk/iser/isertarget"
	"iserblk/session/multipath"
)

const diskBlocks = 2048 // of the bed's unit

func TestAUnitThatGrowsIsServedUpToItsNewEnd(t *testing.T) {
	b := newBed(t, setting{lanes: 2})
	var calls atomic.Int32
	var size atomic.Uint64
	b.unit.OnResize(func(n uint64) { size.Store(n); calls.Add(1) })
	const end = 2 * diskBlocks * 512
	if errno := b.write(end-512, pattern(1, 512)); errno != syscall.EINVAL {
		t.Fatalf("a write beyond the end: %v", errno)
	}
	b.target.Resize(0, 2*diskBlocks)
	for _, w := range b.ways { // each session is told
		if _, errno := w.read(0, 512); errno != 0 {
			t.Fatal(errno)
		}
	}
	b.eventually("the news", func() bool { return size.Load() == end })
	if errno := b.write(end-512, pattern(1, 512)); errno != 0 || b.unit.Limits().Size != end {
		t.Fatalf("a write to the new end: %v, size %d", errno, b.unit.Limits().Size)
	}
	if !bytes.Equal(b.disk.ReadAt(end-512, 512), pattern(1, 512)) {
		t.Error("it went elsewhere")
	}
	b.cut() // it stays the same unit
	if _, errno := b.read(end-512, 512); errno != 0 || calls.Load() != 1 {
		t.Errorf("after another login: %v, %d calls", errno, calls.Load())
	}
	if n := b.path.Status().Losses + b.ways[1].path.Status().Losses; n != 2 {
		t.Errorf("%d losses, one a lane was ordered", n)
	}
}

func TestGrowthIsNoticedAtALogin(t *testing.T) {
	b := newBed(t, setting{})
	sizes := make(chan uint64, 4)
	b.unit.OnResize(func(n uint64) { sizes <- n })
	b.disk.Resize(3 * diskBlocks)
	b.cut()
	select {
	case n := <-sizes:
		if n != 3*diskBlocks*512 {
			t.Errorf("size %d", n)
		}
	case <-time.After(patience):
		t.Fatal("no news")
	}
}

func TestAUnitThatShrinksIsQuarantined(t *testing.T) {
	b := newBed(t, setting{noPath: 200 * time.Millisecond})
	b.target.Resize(0, diskBlocks/2)
	b.eventually("quarantine", func() bool { b.read(0, 512); return b.unit.State() == multipath.UnitQuarantined })
	if errno := b.write(0, pattern(1, 512)); errno != syscall.EIO {
		t.Errorf("a write: %v", errno)
	}
	b.target.Resize(0, 2*diskBlocks)
	b.eventually("its return", func() bool { return b.write(0, pattern(1, 512)) == 0 })
}

// remap puts another unit in the place of b's, and back.
func (b *bed) remap() (back func()) {
	serial := b.disk.Serial
	b.disk.SetSerial("0000remapped")
	b.cutOf(b.ways[0])
	b.eventually("quarantine", func() bool {
		return b.unit.State() == multipath.UnitQuarantined && b.path.Status().State == multipath.StateUp
	})
	return func() { b.disk.SetSerial(serial) }
}

func TestAQuarantinedUnitComesBackByItself(t *testing.T) {
	b := newBed(t, setting{lanes: 2})
	back := b.remap()
	x, y := b.ways[0].begin(block.Write, 0, 0, 512, pattern(1, 512)), b.ways[1].begin(block.Read, 0, 0, 512, nil)
	back()
	if first, second := b.ways[0].end(x), b.ways[1].end(y); first != 0 || second != 0 {
		t.Fatalf("got %v and %v", first, second)
	}
}

func TestAUnitThatIsGoneDoesNotHoldUpItsPath(t *testing.T) {
	b := newBed(t, setting{})
	serial := b.disk.Serial
	b.target.RemoveDisk(0)
	b.cut()
	b.eventually("quarantine", func() bool {
		return b.unit.State() == multipath.UnitQuarantined && b.path.Status().State == multipath.StateUp
	})
	x := b.begin(block.Read, 0, 0, 512, nil)
	b.target.AddDisk(0, isertarget.DiskOptions{Serial: serial})
	if errno := b.end(x); errno != 0 {
		t.Fatalf("after its return: %v", errno)
	}
}

// A lane that gave a write up while another unit answered has fenced that one. When the right one is back it needs a
// fence of its own, before any lane writes.
func TestALaneThatGaveAWriteUpInQuarantineFencesTheUnitOnItsReturn(t *testing.T) {
	b := newBed(t, setting{lanes: 2, noPath: 150 * time.Millisecond, target: isertarget.Options{EarlyReinstatement: true}})
	b.target.SetHooks(isertarget.Hooks{Command: isertarget.Times(1, isOp(opWrite16), isertarget.ParkPulled())})
	other := b.ways[1]
	ghost := other.begin(block.Write, 0, 0, 512, pattern(1, 512))
	if _, err := b.target.WaitParked(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	back := b.remap()
	b.cutOf(other)
	if errno := other.end(ghost); errno != syscall.EIO {
		t.Fatalf("the write ended with %v", errno)
	}
	back()
	want := pattern(2, 512)
	b.eventually("writes", func() bool { return b.write(0, want) == 0 })
	b.target.Release(nil)
	b.eventually("writes by the other lane", func() bool { return other.write(512, want) == 0 })
	if !bytes.Equal(b.disk.ReadAt(0, 512), want) {
		t.Error("the write that was given up has undone a later one")
	}
}
