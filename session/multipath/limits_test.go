package multipath_test

import (
	"syscall"
	"testing"

	"iserblk/internal/block"
	"iserblk/iser/isertarget"
	"iserblk/session"
	"iserblk/session/multipath"
)

func TestLimitsStandWhateverAUnitClaims(t *testing.T) {
	const most, huge = 512 << 10, 1<<32 - 1
	base := session.LogicalUnit{Blocks: 1 << 20, BlockSize: 512, PhysicalBlockSize: 512}
	for name, c := range map[string]struct {
		change func(*session.LogicalUnit)
		ok     func(block.Limits) bool
	}{
		"nothing said": {func(*session.LogicalUnit) {}, func(l block.Limits) bool {
			return l.MaxTransfer == most && l.MaxDiscard == 0 && l.MaxWriteZeroes == 0 && l.Size == 512<<20
		}},
		"physical blocks smaller than logical ones": {
			func(u *session.LogicalUnit) { u.PhysicalBlockSize = 0 },
			func(l block.Limits) bool { return l.PhysicalBlockSize == 512 },
		},
		"a transfer that is no number of pages": {
			func(u *session.LogicalUnit) { u.MaxTransfer = 255 * 512 },
			func(l block.Limits) bool { return l.MaxTransfer == 31*4096 },
		},
		"a transfer of less than a page": {
			func(u *session.LogicalUnit) { u.MaxTransfer = 3*512 + 1 },
			func(l block.Limits) bool { return l.MaxTransfer == 3*512 },
		},
		"a transfer beyond everything": {
			func(u *session.LogicalUnit) { u.MaxTransfer = huge },
			func(l block.Limits) bool { return l.MaxTransfer == most },
		},
		"granules that overflow": {
			func(u *session.LogicalUnit) {
				u.Unmap, u.UnmapGranularity, u.UnmapAlignment, u.MaxUnmapBlocks = true, 1<<23, huge, 1<<63
			},
			func(l block.Limits) bool {
				return l.DiscardGranularity == 512 && l.DiscardAlignment == 0 && l.MaxDiscard == 1<<30
			},
		},
		"an alignment beyond the granule": {
			func(u *session.LogicalUnit) { u.Unmap, u.UnmapGranularity, u.UnmapAlignment = true, 8, 9 },
			func(l block.Limits) bool { return l.DiscardGranularity == 4096 && l.DiscardAlignment == 512 },
		},
		"discard by write same is bounded by that": {
			func(u *session.LogicalUnit) { u.WriteSame, u.WriteSameUnmap, u.MaxWriteSameBlocks = true, true, 100 },
			func(l block.Limits) bool { return l.MaxDiscard == 51200 && l.MaxWriteZeroes == 51200 },
		},
		"write protected": {
			func(u *session.LogicalUnit) { u.ReadOnly, u.Unmap, u.WriteSame = true, true, true },
			func(l block.Limits) bool { return l.ReadOnly && l.MaxDiscard == 0 && l.MaxWriteZeroes == 0 },
		},
		"FUA without a cache": {
			func(u *session.LogicalUnit) { u.FUA = true },
			func(l block.Limits) bool { return !l.FUA && !l.WriteCache },
		},
	} {
		t.Run(name, func(t *testing.T) {
			lu := base
			c.change(&lu)
			if l := multipath.NewUnit(lu, most, depth).Limits(); !c.ok(l) {
				t.Errorf("%+v", l)
			}
		})
	}
	old := base
	old.Old = true
	if l := multipath.NewUnit(old, 64<<20, depth).Limits(); l.MaxTransfer > 65535*512 {
		t.Errorf("a 10-byte command cannot move %d bytes", l.MaxTransfer)
	}
}

// WRITE SAME takes no blocks for all of them, and block numbers are cut to 32 bits somewhere.
func TestWhatCannotBeSaidIsNotSent(t *testing.T) {
	b := newBed(t, setting{disk: isertarget.DiskOptions{Blocks: 4096}})
	const size = 4096 * 512
	for _, op := range []block.Op{block.Read, block.Write, block.Discard, block.WriteZeroes, block.Op(9)} {
		for _, r := range [][2]uint64{
			{0, 0},
			{0, 511},
			{1, 512},
			{0, 513},
			{0, size + 512},
			{size, 512},
			{512, size},
			{0, 512 << 32},
			{^uint64(0) - 511, 512},
			{^uint64(0) - 511, 1024},
			{512, ^uint64(0) - 511},
		} {
			if errno := b.do(op, 0, r[0], r[1], nil); errno == 0 {
				t.Errorf("%v of %d bytes at %d: done", op, r[1], r[0])
			}
		}
	}
	if sent := b.target.Commands(); len(sent) != 0 {
		t.Errorf("sent: %v", sent)
	}
}

func TestAReadOnlyUnitIsSentNoWrites(t *testing.T) {
	b := newBed(t, setting{disk: isertarget.DiskOptions{ReadOnly: true}})
	for _, op := range []block.Op{block.Write, block.Discard, block.WriteZeroes} {
		if errno := b.do(op, 0, 0, 512, nil); errno != syscall.EROFS {
			t.Errorf("%v: %v", op, errno)
		}
	}
	if sent := b.target.Commands(); len(sent) != 0 {
		t.Errorf("sent: %v", sent)
	}
}
