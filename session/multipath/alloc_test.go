package multipath

import (
	"syscall"
	"testing"

	"iserblk/internal/block"
	"iserblk/session"
	"iserblk/session/scsi"
)

// countSink counts what came back without an error.
type countSink struct{ good int }

func (s *countSink) Done(_ *block.Request, errno syscall.Errno) {
	if errno == 0 {
		s.good++
	}
}

// Between a front end and a nexus nothing is allocated, whatever is asked for.
func TestARequestAllocatesNothingOnItsWayThroughTheUnit(t *testing.T) {
	u := NewUnit(session.LogicalUnit{
		Blocks: 1 << 20, BlockSize: 512, WriteCache: true, FUA: true,
		Unmap: true, WriteSame: true, WriteSameUnmap: true, ReadsZeroes: true,
	}, 1<<20, 4)
	q := u.AddQueue(NewPath(Config{NoPathTimeout: -1}), Memory{
		Params: session.Buffer{Mem: make([]byte, 4*ParamSize)}, Zeroes: session.Buffer{Mem: make([]byte, 512)},
	})
	data, sink, rounds := make([]byte, 4096), &countSink{}, 0
	for _, op := range []block.Op{block.Read, block.Write, block.Flush, block.Discard, block.WriteZeroes} {
		r := block.Request{Op: op, Flags: block.FUA, Tag: 3, Offset: 8192, Length: 4096, Data: data, Sink: sink}
		n := testing.AllocsPerRun(200, func() {
			rounds++
			q.Submit(&r)
			o := q.parked.takeAll() // as a nexus would take it
			o.next = nil
			o.cmd.Status = scsi.StatusGood
			o.CommandDone(&o.cmd)
		})
		if n != 0 {
			t.Errorf("%v: %v allocations", op, n)
		}
	}
	if sink.good != rounds {
		t.Errorf("%d of %d requests were done", sink.good, rounds)
	}
}
