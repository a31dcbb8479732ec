package iser_test

import (
	"testing"

	"iserblk/iser"
	"iserblk/session"
	"iserblk/session/pdu"
)

// onePDU carries a command to the target and its answer back, all on this goroutine.
func onePDU(t testing.TB, w *wire, buf []byte, dir session.Direction, immediate int) func() {
	bhs := command(dir, 4096, immediate)
	data := w.buf(0, 4096)
	answer := response(pdu.OpSCSIResponse, nil)
	copy(answer[iser.HeadersLen-pdu.BHSLen+16:], bhs[16:20]) // the ITT
	ctx := t.Context()
	w.onPDU = func(pdu.BHS, []byte) {}
	return func() {
		if err := w.conn.SendCommand(&bhs, dir, data, immediate); err != nil {
			t.Fatal(err)
		}
		if err := w.conn.Flush(); err != nil {
			t.Fatal(err)
		}
		if _, err := w.peer.Recv(ctx, buf); err != nil {
			t.Fatal(err)
		}
		if err := w.peer.Send(answer); err != nil {
			t.Fatal(err)
		}
		for {
			n, err := w.conn.Poll(w)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
		}
		if err := w.conn.Arm(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNothingIsAllocatedOnTheWayOfACommand(t *testing.T) {
	buf := make([]byte, 1<<14)
	for _, c := range []struct {
		dir       session.Direction
		immediate int
	}{{session.In, 0}, {session.Out, 0}, {session.Out, 4096}, {session.NoData, 0}} {
		w := full(t, iser.Options{})
		if n := testing.AllocsPerRun(1000, onePDU(t, w, buf, c.dir, c.immediate)); n != 0 {
			t.Errorf("direction %d, %d immediate: %v allocations", c.dir, c.immediate, n)
		}
		w.listener.Close()
	}
}

func BenchmarkCommand(b *testing.B) {
	w := full(b, iser.Options{})
	run := onePDU(b, w, make([]byte, 1<<14), session.In, 0)
	b.ReportAllocs()
	for b.Loop() {
		run()
	}
}
