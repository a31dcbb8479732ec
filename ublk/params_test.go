package ublk

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"iserblk/internal/block"
)

func TestLimitsBecomeParameters(t *testing.T) {
	l := testLimits()
	l.OptimalIO, l.Rotational = 65536, true
	p := newParams(&l)
	if want := uint32(paramTypeBasic | paramTypeDiscard | paramTypeDMAAlign); p.types != want || p.len != 120 {
		t.Errorf("types %#x, len %d", p.types, p.len)
	}
	opt := cmp.AllowUnexported(paramBasic{}, paramDiscard{})
	basic := paramBasic{
		attrs:        attrRotational | attrVolatileCache | attrFUA,
		logicalShift: 12, physicalShift: 12, ioMinShift: 12, ioOptShift: 16, maxSectors: 128, devSectors: testSize / 512,
	}
	if diff := cmp.Diff(basic, p.basic, opt); diff != "" {
		t.Error(diff)
	}
	discard := paramDiscard{granularity: 65536, maxDiscardSectors: 1 << 21, maxWriteZeroesSectors: 2048, maxSegments: 1}
	if diff := cmp.Diff(discard, p.discard, opt); diff != "" {
		t.Error(diff)
	}
}

func TestCacheAttributesAreHonest(t *testing.T) {
	for _, c := range []struct {
		cache, fua, readOnly bool
		want                 uint32
	}{
		{false, false, false, 0},
		{false, true, false, 0}, // the kernel heeds FUA only with a cache
		{true, false, false, attrVolatileCache},
		{true, true, false, attrVolatileCache | attrFUA},
		{false, false, true, attrReadOnly},
	} {
		l := block.Limits{WriteCache: c.cache, FUA: c.fua, ReadOnly: c.readOnly}
		if got := attrs(&l); got != c.want {
			t.Errorf("%+v: attributes %#x", c, got)
		}
	}
}

func TestWithoutDiscardThereIsNoDiscardParameter(t *testing.T) {
	l := testLimits()
	l.MaxDiscard, l.MaxWriteZeroes, l.DiscardGranularity = 0, 0, 0
	if p := newParams(&l); p.types&paramTypeDiscard != 0 {
		t.Error("there is")
	}
	l.MaxWriteZeroes = 1 << 20 // write-zeroes alone comes by the same parameter, which needs a granularity
	if p := newParams(&l); p.discard.granularity != 4096 || p.discard.maxDiscardSectors != 0 || p.discard.maxWriteZeroesSectors != 2048 {
		t.Errorf("%+v", p.discard)
	}
}

func TestAnOptimalSizeThatIsNoPowerOfTwoIsLeftOut(t *testing.T) {
	l := testLimits()
	l.OptimalIO = 192 << 10
	if p := newParams(&l); p.basic.ioOptShift != 12 {
		t.Errorf("shift %d", p.basic.ioOptShift)
	}
}

func TestImpossibleLimitsAreRefused(t *testing.T) {
	for name, change := range map[string]func(*block.Limits){
		"block size":          func(l *block.Limits) { l.BlockSize = 520 },
		"small block":         func(l *block.Limits) { l.BlockSize = 256 },
		"large block":         func(l *block.Limits) { l.BlockSize, l.PhysicalBlockSize = 1<<20, 1<<20 },
		"physical":            func(l *block.Limits) { l.PhysicalBlockSize = 512 },
		"no size":             func(l *block.Limits) { l.Size = 0 },
		"odd size":            func(l *block.Limits) { l.Size += 512 },
		"no transfer":         func(l *block.Limits) { l.MaxTransfer = 0 },
		"odd transfer":        func(l *block.Limits) { l.MaxTransfer = 5000 },
		"huge transfer":       func(l *block.Limits) { l.MaxTransfer = 64 << 20 },
		"no depth":            func(l *block.Limits) { l.Depth = 0 },
		"deep":                func(l *block.Limits) { l.Depth = 5000 },
		"discard granularity": func(l *block.Limits) { l.DiscardGranularity = 0 },
	} {
		l := testLimits()
		if change(&l); checkLimits(&l) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	l := testLimits()
	if err := checkLimits(&l); err != nil {
		t.Error(err)
	}
}

func TestQueuesMustHaveABufferForEveryTag(t *testing.T) {
	good := make([]Buffer, testDepth)
	for i := range good {
		good[i].Mem = make([]byte, testTransfer)
	}
	short := append([]Buffer{{Mem: make([]byte, 1)}}, good[1:]...)
	for name, c := range map[string]struct {
		buffers []Buffer
		ok      bool
	}{"all": {good, true}, "too few": {good[1:], false}, "too short": {short, false}} {
		cfg := Config{Limits: testLimits(), Queues: []QueueConfig{{Buffers: c.buffers}}}
		if err := cfg.check(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	err := unsupported("load ublk", modprobeError([]byte("modprobe: FATAL: Module ublk_drv not found\n"), unix.ENOENT), "use the nbd front end")
	if !errors.Is(err, ErrUnsupported) || !strings.HasSuffix(err.Error(), "; use the nbd front end") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%q", err)
	}
}

func TestOnlyTheMarksOfTheDeadAreOrphans(t *testing.T) {
	const never = 1<<markPIDBit - 1 // above every pid_max
	m := mark()
	if orphan(m) {
		t.Error("this process is dead")
	}
	dead := m | never
	if !orphan(dead) {
		t.Error("a process that cannot be is alive")
	}
	if orphan(0) || orphan(dead^1<<markPIDBit) || orphan(dead^1<<(markPIDBit+markNSBits)) {
		t.Error("took another's device for ours")
	}
}
