package isertarget_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"iserblk/internal/block"
	"iserblk/iser/isertarget"
	"iserblk/session/multipath"
	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

func isData(c isertarget.Command) bool {
	return slices.Contains([]byte{0x28, 0x2a, 0x88, 0x8a}, c.Op())
}

// spoil makes a Message hook that changes one SCSI Response, the first from now on.
func spoil(change func(msg []byte) [][]byte) func() isertarget.Hooks {
	return func() isertarget.Hooks {
		var once sync.Once
		return lie(func(m []byte) (out [][]byte) {
			out = one(m)
			once.Do(func() { out = change(m) })
			return out
		})
	}
}

func plan(n int, a isertarget.Action) func() isertarget.Hooks {
	return func() isertarget.Hooks { return isertarget.Hooks{Command: isertarget.Times(n, isData, a)} }
}

func isUA(asc, ascq uint8) scsi.Sense {
	return scsi.Sense{Key: scsi.KeyUnitAttention, ASC: asc, ASCQ: ascq}
}

// Whatever a target does to one answer, what was written is there and nobody hears of it.
func TestATransientFaultIsNeverSeenAboveTheUnit(t *testing.T) {
	for name, hooks := range map[string]func() isertarget.Hooks{
		"delayed":            plan(2, isertarget.Delay(20*time.Millisecond)),
		"answered late":      plan(2, isertarget.Late(20*time.Millisecond)),
		"too late":           plan(1, isertarget.Late(time.Hour)),
		"never carried out":  plan(1, isertarget.Ignore()),
		"busy":               plan(3, isertarget.Answer(scsi.StatusBusy)),
		"task set full":      plan(3, isertarget.Answer(scsi.StatusTaskSetFull)),
		"task aborted":       plan(1, isertarget.Answer(scsi.StatusTaskAborted)),
		"bus reset":          plan(1, isertarget.Check(isUA(0x29, 0x02))),
		"capacity changed":   plan(1, isertarget.Check(isUA(0x2a, 0x09))),
		"units changed":      plan(1, isertarget.Check(isUA(0x3f, 0x0e))),
		"access changed":     plan(1, isertarget.Check(isUA(0x2a, 0x06))),
		"becoming ready":     plan(2, isertarget.Check(scsi.Sense{Key: scsi.KeyNotReady, ASC: 0x04, ASCQ: 0x01})),
		"hung up":            plan(1, isertarget.Disconnect()),
		"answer dropped":     spoil(func([]byte) [][]byte { return nil }),
		"answer repeated":    spoil(func(m []byte) [][]byte { return [][]byte{m, m} }),
		"answer to nobody":   spoil(func(m []byte) [][]byte { return one(set(m, bhsAt+16, 9, 9, 9, 9)) }),
		"opcode of another":  spoil(func(m []byte) [][]byte { return one(set(m, bhsAt, byte(pdu.OpDataIn))) }),
		"a lie about length": spoil(func(m []byte) [][]byte { return one(set(m, bhsAt+7, 200)) }),
		"one byte moved": spoil(func(m []byte) [][]byte {
			return one(set(set(m, bhsAt+1, 0x82), bhsAt+44, 0, 0, 0, 1)) // an underflow of one byte
		}),
	} {
		for _, op := range []block.Op{block.Write, block.Read} {
			t.Run(fmt.Sprintf("%s, %v", name, op), func(t *testing.T) {
				t.Parallel()
				s := newStack(t, isertarget.Options{}, isertarget.DiskOptions{})
				want := pattern(16<<10, 3)
				if op == block.Read {
					s.disk.WriteAt(4096, want)
				}
				s.target.SetHooks(hooks())
				if op == block.Write {
					if errno := s.write(4096, want); errno != 0 {
						t.Fatal(errno)
					}
				}
				got, errno := s.read(4096, len(want))
				if errno != 0 || !bytes.Equal(got, want) {
					t.Fatalf("read ended with %v, the right bytes: %v", errno, bytes.Equal(got, want))
				}
			})
		}
	}
}

func TestAPermanentFaultIsReportedAsWhatItIs(t *testing.T) {
	for name, c := range map[string]struct {
		options isertarget.Options
		sense   scsi.Sense
		want    syscall.Errno
	}{
		"medium error": {sense: scsi.Sense{Key: scsi.KeyMediumError, ASC: 0x11}, want: syscall.ENODATA},
		"medium error in sense as long as SCST's": {
			options: isertarget.Options{SenseLength: 252},
			sense:   scsi.Sense{Key: scsi.KeyMediumError, ASC: 0x11}, want: syscall.ENODATA,
		},
		"medium error in descriptors": {
			options: isertarget.Options{DescriptorSense: true, PadResponses: true},
			sense:   scsi.Sense{Key: scsi.KeyMediumError, ASC: 0x11, Info: 1 << 40, InfoValid: true}, want: syscall.ENODATA,
		},
		"hardware error": {sense: scsi.Sense{Key: scsi.KeyHardwareError, ASC: 0x44}, want: syscall.EREMOTEIO},
		"space is out":   {sense: scsi.Sense{Key: scsi.KeyDataProtect, ASC: 0x27, ASCQ: 0x07}, want: syscall.ENOSPC},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t, c.options, isertarget.DiskOptions{})
			s.target.SetHooks(plan(1, isertarget.Check(c.sense))())
			if errno := s.write(0, pattern(512, 1)); errno != c.want {
				t.Errorf("ended with %v, want %v", errno, c.want)
			}
			if errno := s.write(0, pattern(512, 1)); errno != 0 {
				t.Errorf("the next request: %v", errno)
			}
			if n := s.logins.Load(); n != 1 {
				t.Errorf("%d logins: an error of the unit is none of the path", n)
			}
		})
	}
}

func TestBadBlocksFailAloneAndHeal(t *testing.T) {
	s := newStack(t, isertarget.Options{}, isertarget.DiskOptions{})
	s.disk.SetBad(10, 2)
	for off, want := range map[uint64]syscall.Errno{8 * 512: 0, 9 * 512: syscall.ENODATA, 11 * 512: syscall.ENODATA, 12 * 512: 0} {
		if _, errno := s.read(off, 1024); errno != want {
			t.Errorf("read at block %d: %v, want %v", off/512, errno, want)
		}
	}
	if errno := s.write(10*512, pattern(512, 1)); errno != syscall.ENODATA {
		t.Errorf("write: %v", errno)
	}
	s.disk.Heal()
	if _, errno := s.read(9*512, 1024); errno != 0 {
		t.Errorf("read after healing: %v", errno)
	}
}

func TestALyingBlockIsFoundByLookingAtItsBytesOnly(t *testing.T) {
	s := newStack(t, isertarget.Options{}, isertarget.DiskOptions{})
	want := pattern(4096, 5)
	if errno := s.write(0, want); errno != 0 {
		t.Fatal(errno)
	}
	s.disk.SetLying(3)
	got, errno := s.read(0, 4096)
	if errno != 0 || bytes.Equal(got, want) || !bytes.Equal(got[:3*512], want[:3*512]) || !bytes.Equal(got[4*512:], want[4*512:]) {
		t.Errorf("read: %v", errno)
	}
	s.disk.Heal()
	if got, _ := s.read(0, 4096); !bytes.Equal(got, want) {
		t.Error("the medium itself has changed")
	}
}

func TestAParkedWriteRunsLaterAndOnce(t *testing.T) {
	s := newStack(t, isertarget.Options{}, isertarget.DiskOptions{})
	s.target.SetHooks(plan(1, isertarget.Park())())
	o := s.submit(0, block.Write, 0, pattern(512, 1))
	if _, err := s.target.WaitParked(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if n := s.target.Release(nil); n != 1 {
		t.Fatal(n)
	}
	if errno := s.wait(o); errno != 0 {
		t.Fatal(errno)
	}
	if n := len(s.target.Commands(0x8a)); n != 1 {
		t.Errorf("%d writes", n)
	}
}

func TestAPortalThatGoesDownIsReplacedByTheOther(t *testing.T) {
	for name, fault := range map[string]struct{ begin, end func(*isertarget.Portal) }{
		"down":   {(*isertarget.Portal).Down, func(p *isertarget.Portal) { _ = p.Up(t.Context()) }},
		"frozen": {(*isertarget.Portal).Freeze, (*isertarget.Portal).Thaw},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, isertarget.Options{Vendor: "LIO-ORG"}, isertarget.DiskOptions{})
			for round, seed := range []byte{1, 2, 3} {
				hit := s.portals[round%2]
				s.eventually("a path by the healthy portal", func() bool { return s.path.Status().State == multipath.StateUp })
				if p := s.path.Status().Portal; p != hit.Addr().String() {
					t.Fatalf("round %d: the path goes by %v, not %v", round, p, hit.Addr())
				}
				fault.begin(hit)
				want := pattern(8192, seed)
				if errno := s.write(0, want); errno != 0 {
					t.Fatal(errno)
				}
				if got, errno := s.read(0, 8192); errno != 0 || !bytes.Equal(got, want) {
					t.Fatal("the other portal has other bytes: ", errno)
				}
				fault.end(hit)
				s.eventually("a path by the other portal", func() bool {
					return s.path.Status().Portal == s.portals[1-round%2].Addr().String()
				})
			}
		})
	}
}

func TestAnotherUnitUnderTheSameNumberGetsNothing(t *testing.T) {
	s := newStack(t, isertarget.Options{}, isertarget.DiskOptions{Serial: "ours"})
	if errno := s.write(0, pattern(512, 1)); errno != 0 {
		t.Fatal(errno)
	}
	other := s.target.Remap(0, isertarget.DiskOptions{Serial: "somebody else's"})
	o := s.submit(0, block.Write, 0, pattern(512, 2))
	s.eventually("quarantine", func() bool { return s.unit.State() == multipath.UnitQuarantined })
	if !bytes.Equal(other.ReadAt(0, 512), make([]byte, 512)) {
		t.Fatal("somebody else's unit was written to")
	}
	s.target.AddDisk(0, isertarget.DiskOptions{Serial: "ours"})
	s.target.Conns()[0].Close()
	if errno := s.wait(o); errno != 0 {
		t.Errorf("the write, once the unit was back: %v", errno)
	}
}

func TestAGrowingUnitGoesOn(t *testing.T) {
	s := newStack(t, isertarget.Options{}, isertarget.DiskOptions{Blocks: 64})
	want := pattern(4096, 1)
	if errno := s.write(0, want); errno != 0 {
		t.Fatal(errno)
	}
	s.target.Resize(0, 128)
	if got, errno := s.read(0, 4096); errno != 0 || !bytes.Equal(got, want) {
		t.Errorf("read after growing: %v", errno)
	}
}

func TestAReservationOfAnotherHostIsNoFaultOfThePath(t *testing.T) {
	s := newStack(t, isertarget.Options{}, isertarget.DiskOptions{})
	for kind, reads := range map[isertarget.ReservationType]syscall.Errno{
		isertarget.WriteExclusive: 0, isertarget.ExclusiveAccess: syscall.EBADE,
		isertarget.WriteExclusiveRegistrants: 0, isertarget.ExclusiveRegistrants: syscall.EBADE,
		isertarget.WriteExclusiveAll: 0, isertarget.ExclusiveAll: syscall.EBADE,
	} {
		s.disk.ReserveByOther("iqn.2026-01.test:other", kind)
		if errno := s.write(0, pattern(512, 1)); errno != syscall.EBADE {
			t.Errorf("type %d: write ended with %v", kind, errno)
		}
		if _, errno := s.read(0, 512); errno != reads {
			t.Errorf("type %d: read ended with %v, want %v", kind, errno, reads)
		}
		s.disk.ClearReservations()
		if errno := s.write(0, pattern(512, 1)); errno != 0 {
			t.Errorf("type %d: after its end: %v", kind, errno)
		}
	}
	if n := s.logins.Load(); n != 1 {
		t.Errorf("%d logins", n)
	}
}

func TestAPortGroupThatIsInTransitionIsWaitedFor(t *testing.T) {
	for _, state := range []scsi.AccessState{scsi.AccessTransitioning, scsi.AccessStandby, scsi.AccessUnavailable} {
		s := newStack(t, isertarget.Options{ALUA: true}, isertarget.DiskOptions{})
		s.target.ChangeAccess(1, state)
		o := s.submit(0, block.Write, 0, pattern(512, 1))
		s.eventually("the write was refused", func() bool { return len(s.target.Commands(0x8a)) > 1 })
		s.target.ChangeAccess(1, scsi.AccessOptimized)
		if errno := s.wait(o); errno != 0 {
			t.Errorf("%v: %v", state, errno)
		}
	}
}

func TestADiskMayLieInAFile(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/disk")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	s := newStack(t, isertarget.Options{}, isertarget.DiskOptions{Medium: f, Blocks: 2048, WriteCache: true})
	want := pattern(8192, 7)
	if errno := s.write(512, want); errno != 0 {
		t.Fatal(errno)
	}
	if errno := s.wait(s.submit(0, block.Flush, 0, nil)); errno != 0 {
		t.Fatal(errno)
	}
	got := make([]byte, 8192)
	if _, err := f.ReadAt(got, 512); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file has something else (%v)", err)
	}
	_ = f.Truncate(0)
	if _, errno := s.read(512, 8192); errno != syscall.ENODATA {
		t.Errorf("read of a file that has lost its bytes: %v", errno)
	}
}

// Commands of one connection may be carried out by several workers: none is lost, none mixed up with another.
func TestWorkersKeepCommandsApart(t *testing.T) {
	b := newBed(t, isertarget.Options{Workers: 8, NoLog: true}, isertarget.DiskOptions{Blocks: 8192})
	n := b.login()
	l := newLoad(b, n, 32, 5000)
	l.run()
	if l.lost != 0 || l.corrupted != 0 {
		t.Errorf("%d lost, %d wrong: %v", l.lost, l.corrupted, n.Cause())
	}
	b.noViolations()
}
