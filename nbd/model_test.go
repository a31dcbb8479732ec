package nbd

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"iserblk/internal/block"
)

// span is where one request of a burst may be: bursts do not overlap within themselves, as nobody could say what the
// result is.
const (
	spans    = 8
	spanSize = testSize / spans
)

// step is a request of a burst, and what has to come of it.
type step struct {
	r    request
	data []byte
	want code
	read []byte
}

// drawStep draws a request within a span, and carries it out on the model.
func drawStep(t *rapid.T, i int, model []byte, form Replies) step {
	const most = testTransfer / testBlock
	s := step{r: request{
		cmd:    rapid.SampledFrom([]command{cmdRead, cmdWrite, cmdTrim, cmdWriteZeroes, cmdFlush, cmdCache, 42}).Draw(t, "command"),
		offset: uint64(i*spanSize) + testBlock*rapid.Uint64Range(0, spanSize/testBlock-most-2).Draw(t, "offset"),
		length: testBlock * rapid.Uint64Range(1, most+1).Draw(t, "length"),
		flags:  rapid.SampledFrom([]uint16{0, cmdFlagFUA}).Draw(t, "flags"),
	}}
	if rapid.IntRange(0, 9).Draw(t, "crooked") == 0 {
		s.r.offset += 100
	}
	part := model[s.r.offset : s.r.offset+s.r.length]
	crooked, long := s.r.offset%testBlock != 0, s.r.length > testTransfer
	switch {
	case s.r.cmd == cmdFlush:
		s.r.offset, s.r.length = 0, 0
	case s.r.cmd == 42 || crooked:
		s.want = codeInval
	case s.r.cmd == cmdWrite && long, s.r.cmd == cmdRead && long && form == Simple:
		s.want = codeInval
	case s.r.cmd == cmdRead && long:
		s.want = codeOverflow
	}
	if s.r.cmd == cmdWrite {
		s.data = pattern(int(s.r.length), rapid.Byte().Draw(t, "content"))
	}
	if s.want != codeOK {
		return s
	}
	switch s.r.cmd {
	case cmdRead:
		s.read = bytes.Clone(part)
	case cmdWrite:
		copy(part, s.data)
	case cmdTrim, cmdWriteZeroes:
		clear(part)
	}
	return s
}

// burst sends steps in pieces of any size and checks the replies, which come in any order.
func burst(t *rapid.T, c *client, steps []step) {
	var stream []byte
	open := map[uint64]step{}
	for _, s := range steps {
		cookie, b := c.request(s.r, s.data)
		stream = append(stream, b...)
		open[cookie] = s
	}
	cuts := rapid.SliceOfN(rapid.IntRange(0, len(stream)), 0, 20).Draw(t, "cuts")
	slices.Sort(cuts)
	go func() {
		at := 0
		for _, end := range append(cuts, len(stream)) {
			_, _ = c.net.Write(stream[at:end]) // a server that ends the connection is seen by who reads
			at = end
		}
	}()
	for len(open) > 0 {
		got, err := c.next()
		s, ok := open[got.cookie]
		if err != nil || !ok {
			t.Fatalf("reply %+v, %v; open are %d", got, err, len(open))
		}
		delete(open, got.cookie)
		if got.err != s.want {
			t.Fatalf("%+v: error %d %q, not %d", s.r, got.err, got.text, s.want)
		}
		if !bytes.Equal(got.data, s.read) {
			t.Fatalf("%+v: wrong bytes", s.r)
		}
	}
}

func TestAnySequenceOfRequestsDoesWhatAModelDoes(t *testing.T) {
	onBoth(t, func(t *testing.T, o bedOptions) {
		o.unit = func(u *unit) { u.late, u.random = true, rand.New(rand.NewPCG(1, 2)) }
		b := newBed(t, o)
		rapid.Check(t, func(t *rapid.T) {
			form := rapid.SampledFrom([]Replies{Simple, Structured, Extended}).Draw(t, "form")
			c := b.connect(ConnOptions{Replies: form})
			defer c.net.Close()
			model := b.content()
			for range rapid.IntRange(1, 3).Draw(t, "bursts") {
				var steps []step
				for i := range spans {
					steps = append(steps, drawStep(t, i, model, form))
				}
				burst(t, c, steps)
			}
			if !bytes.Equal(b.content(), model) {
				t.Fatal("the unit holds something else than the model")
			}
		})
	})
}

func TestAUnitThatFailsIsReportedAndChangesNothingElse(t *testing.T) {
	onEveryForm(t, func(t *testing.T, o bedOptions, form Replies) {
		for errno, want := range map[syscall.Errno]code{
			syscall.EIO: codeIO, syscall.EROFS: codePerm, syscall.ENOSPC: codeNoSpace, syscall.ENOMEM: codeNoMem, syscall.ETIMEDOUT: codeIO,
			syscall.EINVAL: codeInval, syscall.EOPNOTSUPP: codeInval,
		} {
			o.unit = func(u *unit) {
				u.errno = func(r *block.Request) (e syscall.Errno) {
					if r.Offset == 512 {
						e = errno
					}
					return e
				}
			}
			b := newBed(t, o)
			c := b.connect(ConnOptions{Replies: form})
			for _, r := range []request{{cmd: cmdRead, offset: 512, length: 512}, {cmd: cmdTrim, offset: 512, length: testSize / 2}} {
				if got := c.do(r, nil); got.err != want {
					t.Errorf("%v: error %d, not %d", errno, got.err, want)
				}
			}
			if got := c.do(request{cmd: cmdWrite, offset: 512, length: 512}, make([]byte, 512)); got.err != want {
				t.Errorf("%v: error %d of a write, not %d", errno, got.err, want)
			}
			c.must(request{cmd: cmdRead, offset: 0, length: 512}, nil)
		}
	})
}
