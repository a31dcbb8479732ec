package iser_test

import (
	"testing"

	"iserblk/iser"
	"iserblk/session/pdu"
)

// FuzzReceive feeds the receive path with raw messages. Whatever comes, a PDU that is passed on is whole: its header
// has 48 bytes and its data is what the header says.
func FuzzReceive(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(response(pdu.OpSCSIResponse, make([]byte, 20)))
	f.Add(response(pdu.OpNOPIn, nil))
	f.Add(response(pdu.OpTextResponse, make([]byte, 8192)))
	f.Add(make([]byte, 76+8193))
	f.Fuzz(func(t *testing.T, msg []byte) {
		w := full(t, iser.Options{MaxCommands: 1})
		passed := 0
		w.onPDU = func(bhs pdu.BHS, data []byte) {
			passed++
			if len(bhs) != pdu.BHSLen || bhs.DataSegmentLength() != len(data) || bhs.TotalAHSLength() != 0 {
				t.Errorf("header of %d bytes announces %d, %d came", len(bhs), bhs.DataSegmentLength(), len(data))
			}
			if cap(data) != len(data) {
				t.Error("the data can be grown into what lies behind it")
			}
		}
		_ = w.peer.Send(msg)
		err := w.drain()
		if (err == nil) != (passed == 1) {
			t.Errorf("%d PDUs passed on, error %v", passed, err)
		}
		w.conn.Abort()
		if _, err := w.conn.Poll(w); err != nil {
			t.Error(err)
		}
		if !w.conn.Drained() {
			t.Error("not drained")
		}
	})
}
