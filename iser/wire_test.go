package iser_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"iserblk/iser"
	"iserblk/session"
	"iserblk/session/pdu"
	"iserblk/verbs"
	"iserblk/verbs/verbstest"
)

func TestPrivateDataSaysThatNeitherZeroBasedAddressesNorInvalidationWork(t *testing.T) {
	w := newWire(t, verbstest.New(), iser.Options{})
	a := w.peer.Attr()
	if diff := cmp.Diff([]byte{0xc0, 0, 0, 0}, a.PrivateData); diff != "" {
		t.Error(diff)
	}
	if a.RetryCount == 0 || a.RetryCount > 6 || a.RNRRetry != 7 {
		t.Errorf("retry counts %d, %d", a.RetryCount, a.RNRRetry)
	}
}

func TestHeaderOfAReadLetsTheTargetWriteToItsBufferOnly(t *testing.T) {
	w := full(t, iser.Options{})
	readKey, writeKey := w.keys()
	if readKey == writeKey {
		t.Fatal("one key for both directions")
	}
	for _, size := range []int{512, 4096, 8192, 8704, 1 << 20} {
		buf := w.buf(0, size)
		w.command(session.In, buf, 0)
		bhs := command(session.In, size, 0)
		want := golden(0x14, 0, 0, readKey, verbs.Addr(buf.Mem), bhs[:], nil)
		if diff := cmp.Diff(want, w.recv()); diff != "" {
			t.Errorf("%d bytes: %s", size, diff)
		}
	}
}

func TestHeaderOfAWriteAdvancesPastItsImmediateData(t *testing.T) {
	w := full(t, iser.Options{})
	_, key := w.keys()
	for i := range w.buf(0, 1<<16).Mem {
		w.buf(0, 1<<16).Mem[i] = byte(i * 13)
	}
	for _, size := range []int{512, 4096, 8192, 8704, 1 << 16} {
		for _, immediate := range []int{0, 512, 8192, size} {
			if immediate > size {
				continue
			}
			buf := w.buf(1024, size-1024*(size>>16))
			immediate = min(immediate, len(buf.Mem))
			w.command(session.Out, buf, immediate)
			bhs := command(session.Out, len(buf.Mem), immediate)
			want := golden(0x18, key, verbs.Addr(buf.Mem)+uint64(immediate), 0, 0, bhs[:], buf.Mem[:immediate])
			if immediate == len(buf.Mem) {
				want = golden(0x10, 0, 0, 0, 0, bhs[:], buf.Mem)
			}
			if !bytes.Equal(want, w.recv()) {
				t.Errorf("%d bytes, %d immediate: wrong message", size, immediate)
			}
		}
	}
}

func TestCommandWithoutDataHasNoTag(t *testing.T) {
	w := full(t, iser.Options{})
	for _, dir := range []session.Direction{session.NoData, session.In, session.Out} {
		w.command(dir, session.Buffer{}, 0)
		bhs := command(dir, 0, 0)
		if diff := cmp.Diff(golden(0x10, 0, 0, 0, 0, bhs[:], nil), w.recv()); diff != "" {
			t.Errorf("direction %d: %s", dir, diff)
		}
	}
}

func TestControlPDUCarriesItsDataBehindTheHeaders(t *testing.T) {
	w := full(t, iser.Options{})
	for _, n := range []int{0, 1, 4, 5, 8192} {
		var bhs [pdu.BHSLen]byte
		data := bytes.Repeat([]byte{0xa5}, n)
		pdu.LoginRequestFields{CSG: 1, DataLen: n, ITT: 3}.Encode(bhs[:])
		if err := errors.Join(w.conn.SendControl(&bhs, data), w.conn.Flush()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(golden(0x10, 0, 0, 0, 0, bhs[:], data), w.recv()); diff != "" {
			t.Errorf("%d bytes: %s", n, diff)
		}
	}
}

func TestHeadersAreTheSameWithAndWithoutInlineSends(t *testing.T) {
	for _, inline := range []int{-1, 75, 76, 256} {
		n := verbstest.New()
		n.MaxInline = inline
		w := newWire(t, n, iser.Options{})
		if err := w.conn.EnableFullFeature(); err != nil {
			t.Fatal(err)
		}
		w.command(session.NoData, session.Buffer{}, 0)
		bhs := command(session.NoData, 0, 0)
		if diff := cmp.Diff(golden(0x10, 0, 0, 0, 0, bhs[:], nil), w.recv()); diff != "" {
			t.Errorf("inline %d: %s", inline, diff)
		}
		w.listener.Close()
	}
}

func TestCommandsThatContradictThemselvesAreRefused(t *testing.T) {
	w := full(t, iser.Options{})
	buf := w.buf(0, 4096)
	for name, send := range map[string]func() error{
		"immediate data of a read": func() error {
			bhs := command(session.In, 4096, 512)
			return w.conn.SendCommand(&bhs, session.In, buf, 512)
		},
		"more immediate data than data": func() error {
			bhs := command(session.Out, 4096, 8192)
			return w.conn.SendCommand(&bhs, session.Out, buf, 8192)
		},
		"header with another length": func() error {
			bhs := command(session.Out, 4096, 512)
			return w.conn.SendCommand(&bhs, session.Out, buf, 0)
		},
		"region that is not registered": func() error {
			bhs := command(session.In, 4096, 0)
			return w.conn.SendCommand(&bhs, session.In, session.Buffer{Mem: buf.Mem, Region: 99}, 0)
		},
		"control data that is too long": func() error {
			var bhs [pdu.BHSLen]byte
			pdu.BHS(bhs[:]).SetDataSegmentLength(8193)
			return w.conn.SendControl(&bhs, make([]byte, 8193))
		},
	} {
		var e *iser.Error
		if err := send(); !errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
		}
	}
	bhs := command(session.In, 4096, 0)
	if err := w.conn.SendCommand(&bhs, session.In, session.Buffer{Mem: buf.Mem, Region: 99}, 0); !errors.Is(err, session.ErrNoBuffer) {
		t.Errorf("a region that is not registered: %v", err)
	}
	if w.conn.Knows(99) || !w.conn.Knows(verbs.RegionID(buf.Region)) {
		t.Error("it does not know which regions it knows")
	}
	if err := w.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	if n := w.conn.Stats().Doorbells; n != 0 {
		t.Errorf("something was sent: %d doorbells", n)
	}
}

func TestOneDoorbellForEverythingQueued(t *testing.T) {
	w := full(t, iser.Options{})
	for range 20 {
		bhs := command(session.In, 512, 0)
		if err := w.conn.SendCommand(&bhs, session.In, w.buf(0, 512), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	if s := w.conn.Stats(); s.Doorbells != 1 || s.Commands != 20 {
		t.Errorf("%+v", s)
	}
}

func TestSendSlotsAreFreeAgainOnlyWhenTheirSendsHaveCompleted(t *testing.T) {
	w := full(t, iser.Options{MaxCommands: 4})
	bhs := command(session.NoData, 0, 0)
	n := 0
	for ; ; n++ {
		if err := w.conn.SendCommand(&bhs, session.NoData, session.Buffer{}, 0); errors.Is(err, session.ErrNoSlot) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n < w.conn.MaxCommands() {
		t.Fatalf("only %d commands fit, MaxCommands is %d", n, w.conn.MaxCommands())
	}
	var nop [pdu.BHSLen]byte
	pdu.NOPOutFields{Immediate: true, ITT: 1, TTT: pdu.ReservedTTT}.Encode(nop[:])
	for i := range session.ControlSlots {
		if err := w.conn.SendControl(&nop, nil); err != nil {
			t.Fatalf("control PDU %d behind %d commands: %v", i, n, err)
		}
	}
	if err := w.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := w.conn.SendCommand(&bhs, session.NoData, session.Buffer{}, 0); !errors.Is(err, session.ErrNoSlot) {
		t.Fatalf("a slot was used again before its send had completed: %v", err)
	}
	for range sharedCompletion {
		w.recv()
	}
	if err := w.drain(); err != nil {
		t.Fatal(err)
	}
	for range sharedCompletion {
		if err := w.conn.SendCommand(&bhs, session.NoData, session.Buffer{}, 0); err != nil {
			t.Fatal(err)
		}
	}
}
