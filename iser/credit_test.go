package iser_test

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"iserblk/iser"
	"iserblk/session"
	"iserblk/session/pdu"
	"iserblk/verbs"
	"iserblk/verbs/verbstest"
)

// limiting is a provider whose connections have little room for what the target writes.
type limiting struct {
	*verbstest.Net
	limit int // bytes; it may be changed at any time
}

func (l *limiting) Dial(ctx context.Context, a verbs.DialAttr) (verbs.Conn, error) {
	c, err := l.Net.Dial(ctx, a)
	if err != nil {
		return nil, err
	}
	return limitingConn{c, l}, nil
}

type limitingConn struct {
	verbs.Conn
	of *limiting
}

func (c limitingConn) InboundLimit() int { return c.of.limit }

func fullLimiting(t testing.TB, limit int) (*wire, *limiting) {
	l := &limiting{Net: verbstest.New(), limit: limit}
	w := newWireOver(t, l.Net, l, iser.Options{})
	if err := w.conn.EnableFullFeature(); err != nil {
		t.Fatal(err)
	}
	return w, l
}

// goes tells whether a command of n bytes goes out now. It may only be refused for want of room, and leaves nothing then.
func (w *wire) goes(itt uint32, dir session.Direction, n int) bool {
	w.t.Helper()
	bhs := command(dir, n, 0)
	binary.BigEndian.PutUint32(bhs[16:], itt)
	before := w.conn.Stats().Commands
	err := w.conn.SendCommand(&bhs, dir, w.buf(0, n), 0)
	if err != nil && err != session.ErrNoSlot || w.conn.Stats().Commands-before != map[bool]uint64{true: 1}[err == nil] {
		w.t.Fatalf("%v, %+v", err, w.conn.Stats())
	}
	if err := w.conn.Flush(); err != nil {
		w.t.Fatal(err)
	}
	return err == nil
}

// answered has the target answer a task.
func (w *wire) answered(op pdu.Opcode, itt uint32) {
	w.t.Helper()
	msg := slices.Clone(response(op, nil))
	binary.BigEndian.PutUint32(msg[iser.HeadersLen-pdu.BHSLen+16:], itt)
	if err := errors.Join(w.peer.Send(msg), w.drain()); err != nil {
		w.t.Fatal(err)
	}
}

func TestReadsWaitUntilThereIsRoomForTheirData(t *testing.T) {
	w, _ := fullLimiting(t, 8192)
	if !w.goes(0x10001, session.In, 4096) || !w.goes(0x10002, session.In, 4096) {
		t.Fatal("there was room")
	}
	if w.goes(0x10003, session.In, 512) {
		t.Error("one too many")
	}
	if !w.goes(0x10004, session.Out, 1<<16) || !w.goes(0x10005, session.NoData, 0) {
		t.Error("the target writes nothing for these")
	}
	ping := [pdu.BHSLen]byte{byte(pdu.OpNOPOut)}
	if err := w.conn.SendControl(&ping, nil); err != nil {
		t.Error(err)
	}
	w.answered(pdu.OpNOPIn, 0x10001)
	w.answered(pdu.OpSCSIResponse, 0x10004)
	if w.goes(0x10003, session.In, 512) {
		t.Error("neither a ping nor a write makes room")
	}
	w.answered(pdu.OpSCSIResponse, 0x10001)
	if !w.goes(0x10003, session.In, 4096) {
		t.Error("an answer makes room")
	}
}

func TestAReadThatIsLargerThanTheRoomGoesAlone(t *testing.T) {
	w, _ := fullLimiting(t, 1000)
	for i := range uint32(10) {
		if !w.goes(i<<16|1, session.In, 4096) {
			t.Fatal("nothing else was under way")
		}
		if w.goes(i<<16|2, session.In, 1) {
			t.Fatal("it did not go alone")
		}
		w.answered(pdu.OpSCSIResponse, i<<16|1)
	}
}

func TestAReadThatWasAbortedMakesRoom(t *testing.T) {
	w, _ := fullLimiting(t, 4096)
	for i := range uint32(10) { // on places of which none is used again
		if !w.goes(i, session.In, 4096) || w.goes(99, session.In, 4096) {
			t.Fatal("there is room for one")
		}
		w.conn.DeallocateTask(pdu.ITT(i))
		w.conn.DeallocateTask(pdu.ITT(i)) // changes nothing
		w.conn.DeallocateTask(1000)       // nobody's
	}
}

func TestAReadThatTakesThePlaceOfAnotherCountsInItsStead(t *testing.T) {
	w, l := fullLimiting(t, 0)
	for i := range uint32(10) {
		w.goes(i<<16|1, session.In, 4096)
	}
	l.limit = 8192
	if !w.goes(2, session.In, 4096) || w.goes(3, session.In, 1) {
		t.Error("two are under way")
	}
}

func TestALimitHoldsForWhatWasUnderWayBeforeThereWasOne(t *testing.T) {
	w, l := fullLimiting(t, 0)
	for i := range uint32(3) {
		if !w.goes(i, session.In, 1<<16) {
			t.Fatal("there is no limit")
		}
	}
	l.limit = 1 << 17
	w.answered(pdu.OpSCSIResponse, 0)
	if w.goes(3, session.In, 1) {
		t.Error("there is no room")
	}
	w.answered(pdu.OpSCSIResponse, 1)
	if !w.goes(3, session.In, 1<<16) {
		t.Error("there is room")
	}
}

func TestCreditAllocatesNothing(t *testing.T) {
	w, _ := fullLimiting(t, 4096)
	if n := testing.AllocsPerRun(1000, onePDU(t, w, make([]byte, 1<<14), session.In, 0)); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
