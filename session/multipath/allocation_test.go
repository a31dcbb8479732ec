package multipath

import (
	"encoding/binary"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"iserblk/internal/block"
	"iserblk/session"
	"iserblk/session/scsi"
)

// lastSink keeps what came back.
type lastSink struct {
	done  int
	errno syscall.Errno
}

func (s *lastSink) Done(_ *block.Request, errno syscall.Errno) {
	s.done++
	s.errno = errno
}

// run is a descriptor of an LBA status list.
type run struct {
	lba    uint64
	blocks uint32
	status scsi.ProvisioningStatus
}

// listOf is GET LBA STATUS data.
func listOf(runs ...run) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(4+16*len(runs)))
	b = append(b, 0, 0, 0, 0)
	for _, r := range runs {
		b = binary.BigEndian.AppendUint64(b, r.lba)
		b = binary.BigEndian.AppendUint32(b, r.blocks)
		b = append(b, byte(r.status), 0, 0, 0)
	}
	return b
}

// askLocation has a thin unit's queue ask for n bytes from off on; answer is called with the command if one is sent.
func askLocation(t *testing.T, q *Queue, off, n uint64, answer func(*session.Command)) (*block.Request, syscall.Errno) {
	t.Helper()
	sink := &lastSink{}
	r := &block.Request{
		Op: block.Allocation, Offset: off, Length: n, Data: make([]byte, block.AllocationScratch), Extents: make([]block.Extent, 0, 4), Sink: sink,
	}
	q.Submit(r)
	if o := q.parked.takeAll(); o != nil {
		o.next = nil
		answer(&o.cmd)
		o.CommandDone(&o.cmd)
	}
	if sink.done != 1 {
		t.Fatalf("done %d times", sink.done)
	}
	return r, sink.errno
}

func thinQueue(lu session.LogicalUnit) *Queue {
	lu.Blocks, lu.BlockSize = 1<<20, 512
	return NewUnit(lu, 1<<20, 4).AddQueue(NewPath(Config{NoPathTimeout: -1}), Memory{})
}

func TestAThinUnitTellsWhereItHasSpace(t *testing.T) {
	q := thinQueue(session.LogicalUnit{Unmap: true, ReadsZeroes: true})
	hole := block.Extent{Length: 512, Hole: true, Zero: true}
	for name, x := range map[string]struct {
		runs []run
		want []block.Extent
	}{
		"one":                   {[]run{{8, 100, 0}}, []block.Extent{{Length: 64 * 512}}},
		"a hole":                {[]run{{8, 16, 0}, {24, 1000, 1}}, []block.Extent{{Length: 16 * 512}, {Length: 48 * 512, Hole: true, Zero: true}}},
		"anchored":              {[]run{{8, 100, 2}}, []block.Extent{{Length: 64 * 512, Zero: true}}},
		"from before the range": {[]run{{0, 9, 1}, {9, 100, 0}}, []block.Extent{{Length: 512, Hole: true, Zero: true}, {Length: 63 * 512}}},
		"neighbours alike":      {[]run{{8, 1, 1}, {9, 1, 1}, {10, 1, 0}}, []block.Extent{{Length: 1024, Hole: true, Zero: true}, {Length: 512}}},
		"with a gap":            {[]run{{8, 1, 1}, {12, 100, 0}}, []block.Extent{{Length: 512, Hole: true, Zero: true}}},
		"more than fit":         {[]run{{8, 1, 1}, {9, 1, 0}, {10, 1, 1}, {11, 1, 0}, {12, 1, 1}}, []block.Extent{hole, {Length: 512}, hole, {Length: 512}}},
	} {
		r, errno := askLocation(t, q, 8*512, 64*512, func(c *session.Command) {
			if c.CDB[0] != 0x9e || c.CDB[1] != 0x12 || binary.BigEndian.Uint64(c.CDB[2:]) != 8 || binary.BigEndian.Uint32(c.CDB[10:]) != block.AllocationScratch {
				t.Errorf("%s: CDB %x", name, c.CDB)
			}
			c.Short = uint32(len(c.Buf.Mem) - copy(c.Buf.Mem, listOf(x.runs...)))
			c.Status = scsi.StatusGood
		})
		if errno != 0 || !cmp.Equal(r.Extents, x.want) {
			t.Errorf("%s: %v, %v", name, errno, cmp.Diff(r.Extents, x.want))
		}
	}
}

func TestAnAnswerThatSaysNothingIsNone(t *testing.T) {
	q := thinQueue(session.LogicalUnit{WriteSameUnmap: true})
	for name, list := range map[string][]byte{
		"empty": nil, "no runs": listOf(), "elsewhere": listOf(run{1000, 5, 1}), "before": listOf(run{0, 8, 1}), "no length": listOf(run{8, 0, 1}),
		"around the world": listOf(run{1<<64 - 2, 100, 1}), "lies": {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
	} {
		r, errno := askLocation(t, q, 8*512, 512, func(c *session.Command) {
			c.Short = uint32(len(c.Buf.Mem) - copy(c.Buf.Mem, list))
			c.Status = scsi.StatusGood
		})
		if errno != syscall.EOPNOTSUPP || len(r.Extents) != 0 {
			t.Errorf("%s: %v, %v", name, errno, r.Extents)
		}
	}
}

func TestAUnitThatDoesNotKnowTheQuestionIsAskedOnce(t *testing.T) {
	q, asked := thinQueue(session.LogicalUnit{Unmap: true}), 0
	for range 3 {
		_, errno := askLocation(t, q, 0, 512, func(c *session.Command) {
			asked++
			c.Status, c.Sense = scsi.StatusCheckCondition, scsi.Sense{Key: scsi.KeyIllegalRequest, ASC: 0x20}
		})
		if errno != syscall.EOPNOTSUPP {
			t.Errorf("%v", errno)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

func TestAUnitThatIsNotThinIsNotAsked(t *testing.T) {
	q := thinQueue(session.LogicalUnit{WriteSame: true})
	if _, errno := askLocation(t, q, 0, 512, func(*session.Command) { t.Error("asked") }); errno != syscall.EOPNOTSUPP {
		t.Errorf("%v", errno)
	}
	q = thinQueue(session.LogicalUnit{Unmap: true})
	if _, errno := askLocation(t, q, 512<<20, 512, func(*session.Command) { t.Error("asked") }); errno != syscall.EINVAL {
		t.Errorf("beyond the end: %v", errno)
	}
}
