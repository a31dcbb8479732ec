package iser_test

import (
	"context"
	"encoding/binary"
	"slices"
	"testing"

	"iserblk/iser"
	"iserblk/session"
	"iserblk/session/pdu"
	"iserblk/verbs"
	"iserblk/verbs/verbstest"
)

// exposing is a provider whose connections open buffers one by one.
type exposing struct {
	*verbstest.Net
	conn *exposingConn
}

func (e *exposing) Dial(ctx context.Context, a verbs.DialAttr) (verbs.Conn, error) {
	c, err := e.Net.Dial(ctx, a)
	if err != nil {
		return nil, err
	}
	e.conn = &exposingConn{Conn: c, open: map[uint32]opened{}}
	return e.conn, nil
}

type opened struct {
	addr         uint64
	n            int
	targetWrites bool
}

type exposingConn struct {
	verbs.Conn
	open map[uint32]opened
	last uint32
}

func (c *exposingConn) Expose(mem []byte, targetWrites bool) uint32 {
	c.last++
	c.open[c.last] = opened{verbs.Addr(mem), len(mem), targetWrites}
	return c.last
}

func (c *exposingConn) Unexpose(rkey uint32) { delete(c.open, rkey) }

func fullExposing(t testing.TB) (*wire, *exposingConn) {
	e := &exposing{Net: verbstest.New()}
	w := newWireOver(t, e.Net, e, iser.Options{})
	if err := w.conn.EnableFullFeature(); err != nil {
		t.Fatal(err)
	}
	return w, e.conn
}

func (w *wire) task(itt uint32, dir session.Direction, buf session.Buffer, immediate int) {
	w.t.Helper()
	bhs := command(dir, len(buf.Mem), immediate)
	binary.BigEndian.PutUint32(bhs[16:], itt)
	if err := w.conn.SendCommand(&bhs, dir, buf, immediate); err != nil {
		w.t.Fatal(err)
	}
	if err := w.conn.Flush(); err != nil {
		w.t.Fatal(err)
	}
}

// answer has the target answer a task, and returns what was open when the session heard of it.
func (w *wire) answer(op pdu.Opcode, itt uint32, c *exposingConn) (open int) {
	w.t.Helper()
	msg := slices.Clone(response(op, nil))
	binary.BigEndian.PutUint32(msg[iser.HeadersLen-pdu.BHSLen+16:], itt)
	if err := w.peer.Send(msg); err != nil {
		w.t.Fatal(err)
	}
	open = -1
	w.onPDU = func(pdu.BHS, []byte) { open = len(c.open) }
	for open < 0 {
		if _, err := w.conn.Poll(w); err != nil {
			w.t.Fatal(err)
		}
	}
	return open
}

func TestABufferIsOpenForItsCommandAloneWhereTheTransportCanDoThat(t *testing.T) {
	w, c := fullExposing(t)
	in, out := w.buf(4096, 512), w.buf(8192, 1024)
	w.task(0x10003, session.In, in, 0)
	w.task(0x10004, session.Out, out, 24)
	r, wr := w.recv(), w.recv()
	for _, k := range []struct {
		key  uint32
		want opened
	}{
		{binary.BigEndian.Uint32(r[16:]), opened{verbs.Addr(in.Mem), 512, true}},
		{binary.BigEndian.Uint32(wr[4:]), opened{verbs.Addr(out.Mem) + 24, 1000, false}},
	} {
		if got := c.open[k.key]; got != k.want {
			t.Errorf("key %d: %+v, not %+v", k.key, got, k.want)
		}
	}
	if n := w.answer(pdu.OpSCSIResponse, 0x10009, c); n != 2 {
		t.Errorf("%d windows after an answer to nobody", n)
	}
	if n := w.answer(pdu.OpNOPIn, 0x10003, c); n != 2 {
		t.Errorf("%d windows after something that is no answer", n)
	}
	if n := w.answer(pdu.OpSCSIResponse, 0x10004, c); n != 1 {
		t.Errorf("%d windows when the write is done", n)
	}
	if n := w.answer(pdu.OpSCSIResponse, 0x10003, c); n != 0 {
		t.Errorf("%d windows when all is done", n)
	}
}

func TestTheWindowOfAnAbortedCommandCloses(t *testing.T) {
	w, c := fullExposing(t)
	w.task(0x10003, session.In, w.buf(0, 512), 0)
	w.task(0x10004, session.In, w.buf(4096, 512), 0)
	w.conn.DeallocateTask(0x10003)
	w.conn.DeallocateTask(0x10003) // changes nothing
	if len(c.open) != 1 || c.open[c.last].addr != verbs.Addr(w.buf(4096, 512).Mem) {
		t.Errorf("%+v", c.open)
	}
}

func TestAWindowThatWasNeverAnsweredClosesWhenItsPlaceIsTaken(t *testing.T) {
	w, c := fullExposing(t)
	w.task(0x10003, session.In, w.buf(0, 512), 0)
	w.task(0x20003, session.Out, w.buf(4096, 512), 0)
	if len(c.open) != 1 || !(c.open[c.last] == opened{verbs.Addr(w.buf(4096, 512).Mem), 512, false}) {
		t.Errorf("%+v", c.open)
	}
}

func TestNothingIsOpenedForACommandThatHasNothingToFetch(t *testing.T) {
	w, c := fullExposing(t)
	w.task(1, session.NoData, session.Buffer{}, 0)
	w.task(2, session.Out, w.buf(0, 512), 512)
	if len(c.open) != 0 {
		t.Errorf("%+v", c.open)
	}
}

func TestWindowsAllocateNothing(t *testing.T) {
	w, _ := fullExposing(t)
	if n := testing.AllocsPerRun(1000, onePDU(t, w, make([]byte, 1<<14), session.In, 0)); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
