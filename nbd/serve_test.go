package nbd

import (
	"bytes"
	"testing"

	"iserblk/internal/block"
)

func onEveryForm(t *testing.T, f func(t *testing.T, o bedOptions, form Replies)) {
	t.Helper()
	onBoth(t, func(t *testing.T, o bedOptions) {
		for form, name := range []string{"simple", "structured", "extended"} {
			t.Run(name, func(t *testing.T) { f(t, o, Replies(form)) })
		}
	})
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	onEveryForm(t, func(t *testing.T, o bedOptions, form Replies) {
		b := newBed(t, o)
		c := b.connect(ConnOptions{Replies: form})
		data := pattern(testTransfer, 1)
		c.must(request{cmd: cmdWrite, offset: 4096, length: testTransfer}, data)
		got := c.must(request{cmd: cmdRead, offset: 4096, length: testTransfer}, nil)
		if !bytes.Equal(got.data, data) {
			t.Fatal("read something else than was written")
		}
		if !bytes.Equal(b.content()[4096:4096+testTransfer], data) {
			t.Fatal("the unit has something else")
		}
	})
}

func TestEveryCommandDoesWhatItSays(t *testing.T) {
	onEveryForm(t, func(t *testing.T, o bedOptions, form Replies) {
		b := newBed(t, o)
		c := b.connect(ConnOptions{Replies: form})
		u := b.units[0]
		c.must(request{cmd: cmdWrite, flags: cmdFlagFUA, length: 8192}, pattern(8192, 2))
		c.must(request{cmd: cmdFlush}, nil)
		c.must(request{cmd: cmdFlush, flags: cmdFlagFUA}, nil)
		c.must(request{cmd: cmdCache, length: 3 * testTransfer}, nil)
		c.must(request{cmd: cmdTrim, flags: cmdFlagFUA, offset: 512, length: 512}, nil)
		c.must(request{cmd: cmdWriteZeroes, flags: cmdFlagNoHole, offset: 2048, length: 1024}, nil)
		c.must(request{cmd: cmdWriteZeroes, flags: cmdFlagFastZero | cmdFlagFUA, offset: 4096, length: 512}, nil)
		b.on(u, func() {
			if u.fua != 1 || u.flushes != 4 {
				t.Errorf("%d writes with FUA and %d flushes, not 1 and 4", u.fua, u.flushes)
			}
		})
		want := pattern(8192, 2)
		clear(want[512:1024])
		clear(want[2048:3072])
		clear(want[4096:4608])
		if got := c.must(request{cmd: cmdRead, length: 8192}, nil); !bytes.Equal(got.data, want) {
			t.Error("the wrong bytes are zero")
		}
	})
}

func TestWhatTheUnitCannotDoInOneGoIsDoneInSeveral(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		for _, late := range []bool{false, true} {
			o.unit = func(u *unit) { u.late = late }
			b := newBed(t, o)
			c := b.connect(ConnOptions{Replies: Extended})
			for _, cmd := range []command{cmdTrim, cmdWriteZeroes} {
				c.must(request{cmd: cmdWrite, length: testTransfer}, pattern(testTransfer, 3))
				c.must(request{cmd: cmdWrite, offset: testSize - 512, length: 512}, pattern(512, 3))
				c.must(request{cmd: cmd, offset: 512, length: testSize - 1024}, nil)
				got := b.content()
				if !bytes.Equal(got[:512], pattern(512, 3)) || !bytes.Equal(got[testSize-512:], pattern(512, 3)) {
					t.Errorf("command %d took too much", cmd)
				}
				if !bytes.Equal(got[512:testSize-512], make([]byte, testSize-1024)) {
					t.Errorf("command %d left something", cmd)
				}
			}
		}
	})
}

func TestReadsAndWritesBeyondTheUnitsLargestAreDoneInSeveral(t *testing.T) {
	onEveryForm(t, func(t *testing.T, o bedOptions, form Replies) {
		o.buffer = 5 * testTransfer / 2
		o.unit = func(u *unit) { u.late = true }
		b := newBed(t, o)
		c := b.connect(ConnOptions{Replies: form})
		data := pattern(o.buffer, 5)
		for i := range data {
			data[i] ^= byte(i >> 12)
		}
		c.must(request{cmd: cmdWrite, flags: cmdFlagFUA, offset: 512, length: uint64(o.buffer)}, data)
		got := c.must(request{cmd: cmdRead, offset: 512, length: uint64(o.buffer)}, nil)
		if !bytes.Equal(got.data, data) || !bytes.Equal(b.content()[512:512+o.buffer], data) {
			t.Error("wrong bytes")
		}
		b.on(b.units[0], func() {
			if u := b.units[0]; u.pieces != 6 || u.fua != 3 {
				t.Errorf("%d requests to the unit, %d with FUA", u.pieces, u.fua)
			}
		})
	})
}

func TestWithoutAVolatileCacheNothingIsFlushed(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		o.limits = testLimits()
		o.limits.WriteCache, o.limits.FUA = false, false
		b := newBed(t, o)
		c := b.connect(ConnOptions{Replies: Simple})
		c.must(request{cmd: cmdWrite, flags: cmdFlagFUA, length: 512}, pattern(512, 1))
		c.must(request{cmd: cmdFlush}, nil)
		b.on(b.units[0], func() {
			if u := b.units[0]; u.flushes+u.fua != 0 {
				t.Errorf("%d flushes, %d writes with FUA", u.flushes, u.fua)
			}
		})
	})
}

func TestFUAIsAFlushWhereTheUnitHasNone(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		o.limits = testLimits()
		o.limits.FUA = false
		b := newBed(t, o)
		c := b.connect(ConnOptions{Replies: Simple})
		c.must(request{cmd: cmdWrite, flags: cmdFlagFUA, length: 512}, pattern(512, 1))
		c.must(request{cmd: cmdWrite, length: 512}, pattern(512, 1))
		b.on(b.units[0], func() {
			if u := b.units[0]; u.flushes != 1 || u.fua != 0 {
				t.Errorf("%d flushes, %d writes with FUA", u.flushes, u.fua)
			}
		})
	})
}

func TestBlockStatusTellsWhatTheUnitSays(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		for _, form := range []Replies{Structured, Extended} {
			o.unit = func(u *unit) {
				u.extents = func(r *block.Request) {
					r.Extents = append(r.Extents, block.Extent{Length: 4096}, block.Extent{Length: 8192, Hole: true, Zero: true}, block.Extent{Length: 1 << 40})
				}
			}
			b := newBed(t, o)
			c := b.connect(ConnOptions{Replies: form, BlockStatus: true})
			got := c.must(request{cmd: cmdBlockStatus, length: 1 << 20}, nil).extents
			if len(got) != 3 || got[0] != [2]uint64{4096, 0} || got[1] != [2]uint64{8192, 3} || got[2] != [2]uint64{1<<20 - 12288, 0} {
				t.Errorf("extents %v", got)
			}
			got = c.must(request{cmd: cmdBlockStatus, flags: cmdFlagReqOne, length: 1024}, nil).extents
			if len(got) != 1 || got[0] != [2]uint64{1024, 0} {
				t.Errorf("one extent %v", got)
			}
		}
	})
}

func TestWhereTheUnitCannotTellAllIsAllocated(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		b := newBed(t, o)
		c := b.connect(ConnOptions{Replies: Structured, BlockStatus: true})
		got := c.must(request{cmd: cmdBlockStatus, length: testSize}, nil).extents
		if len(got) != 1 || got[0] != [2]uint64{testSize, 0} {
			t.Errorf("extents %v", got)
		}
	})
}

// refusals are requests that are answered with an error and change nothing.
var refusals = []struct {
	name   string
	r      request
	data   int
	want   code
	only   func(Replies) bool
	limits func(*block.Limits)
}{
	{name: "unknown command", r: request{cmd: 99}, want: codeInval},
	{name: "read beyond the end", r: request{cmd: cmdRead, offset: testSize - 512, length: 1024}, want: codeInval},
	{name: "read far beyond the end", r: request{cmd: cmdRead, offset: ^uint64(511), length: 1024}, want: codeInval},
	{name: "write beyond the end", r: request{cmd: cmdWrite, offset: testSize, length: 512}, data: 512, want: codeNoSpace},
	{name: "zeroes beyond the end", r: request{cmd: cmdWriteZeroes, offset: testSize, length: 512}, want: codeNoSpace},
	{name: "trim beyond the end", r: request{cmd: cmdTrim, offset: testSize, length: 512}, want: codeInval},
	{name: "cache beyond the end", r: request{cmd: cmdCache, offset: testSize, length: 512}, want: codeInval},
	{name: "unaligned read", r: request{cmd: cmdRead, offset: 1, length: 512}, want: codeInval},
	{name: "short read", r: request{cmd: cmdRead, length: 100}, want: codeInval},
	{name: "unaligned write", r: request{cmd: cmdWrite, offset: 1, length: 512}, data: 512, want: codeInval},
	{name: "short write", r: request{cmd: cmdWrite, length: 7}, data: 7, want: codeInval},
	{name: "unaligned trim", r: request{cmd: cmdTrim, offset: 1, length: 512}, want: codeInval},
	{name: "unaligned zeroes", r: request{cmd: cmdWriteZeroes, offset: 1, length: 512}, want: codeInval},
	{name: "long write", r: request{cmd: cmdWrite, length: testTransfer + 512}, data: testTransfer + 512, want: codeInval},
	{name: "very long write", r: request{cmd: cmdWrite, length: testSize}, data: testSize, want: codeInval},
	{name: "long read", r: request{cmd: cmdRead, length: testTransfer + 512}, want: codeInval, only: isSimple},
	{name: "long structured read", r: request{cmd: cmdRead, length: testTransfer + 512}, want: codeOverflow, only: notSimple},
	{name: "unknown flag", r: request{cmd: cmdRead, flags: 1 << 9, length: 512}, want: codeInval},
	{name: "hole in a read", r: request{cmd: cmdRead, flags: cmdFlagNoHole, length: 512}, want: codeInval},
	{name: "fast zero of a write", r: request{cmd: cmdWrite, flags: cmdFlagFastZero, length: 512}, data: 512, want: codeInval},
	{name: "unfragmented simple read", r: request{cmd: cmdRead, flags: cmdFlagDF, length: 512}, want: codeInval, only: isSimple},
	{name: "flush of something", r: request{cmd: cmdFlush, length: 512}, want: codeInval},
	{name: "slow fast zero", r: request{cmd: cmdWriteZeroes, flags: cmdFlagFastZero | cmdFlagNoHole, length: 512}, want: codeNotSup},
	{
		name: "fast zero on a slow unit", r: request{cmd: cmdWriteZeroes, flags: cmdFlagFastZero, length: 512}, want: codeNotSup,
		limits: func(l *block.Limits) { l.FastZeroes = false },
	},
	{name: "status that was not agreed", r: request{cmd: cmdBlockStatus, length: 512}, want: codeInval},
	{name: "write where it is forbidden", r: request{cmd: cmdWrite, length: 512}, data: 512, want: codePerm, limits: readOnly},
	{name: "trim where it is forbidden", r: request{cmd: cmdTrim, length: 512}, want: codePerm, limits: readOnly},
	{name: "zeroes where they are forbidden", r: request{cmd: cmdWriteZeroes, length: 512}, want: codePerm, limits: readOnly},
	{
		name: "trim of a unit without", r: request{cmd: cmdTrim, length: 512}, want: codeInval,
		limits: func(l *block.Limits) { l.MaxDiscard = 0 },
	},
	{
		name: "zeroes of a unit without", r: request{cmd: cmdWriteZeroes, length: 512}, want: codeInval,
		limits: func(l *block.Limits) { l.MaxWriteZeroes = 0 },
	},
}

func isSimple(f Replies) bool  { return f == Simple }
func notSimple(f Replies) bool { return f != Simple }

func readOnly(l *block.Limits) {
	l.ReadOnly, l.MaxDiscard, l.MaxWriteZeroes, l.FastZeroes = true, 0, 0, false
}

func TestEveryBadRequestGetsItsError(t *testing.T) {
	onEveryForm(t, func(t *testing.T, o bedOptions, form Replies) {
		for _, x := range refusals {
			if x.only != nil && !x.only(form) {
				continue
			}
			o.limits = testLimits()
			if x.limits != nil {
				x.limits(&o.limits)
			}
			b := newBed(t, o)
			c := b.connect(ConnOptions{Replies: form})
			got := c.do(x.r, make([]byte, x.data))
			if got.err != x.want || form != Simple && got.text == "" {
				t.Errorf("%s: error %d %q, not %d", x.name, got.err, got.text, x.want)
			}
			c.must(request{cmd: cmdRead, length: 512}, nil) // and the connection goes on
			b.on(b.units[0], func() {
				if b.units[0].pieces != 1 {
					t.Errorf("%s: the unit was asked %d times", x.name, b.units[0].pieces)
				}
			})
		}
	})
}

func TestAnEmptyRequestIsDone(t *testing.T) {
	onEveryForm(t, func(t *testing.T, o bedOptions, form Replies) {
		b := newBed(t, o)
		c := b.connect(ConnOptions{Replies: form})
		for _, cmd := range []command{cmdRead, cmdTrim, cmdWriteZeroes, cmdCache} {
			c.must(request{cmd: cmd, offset: testSize}, nil)
		}
		if form != Extended { // where a payload of nothing is none
			c.must(request{cmd: cmdWrite, flags: cmdFlagFUA}, nil)
		}
	})
}
