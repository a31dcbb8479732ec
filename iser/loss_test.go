package iser_test

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/iser"
	"iserblk/session"
	"iserblk/session/pdu"
	"iserblk/verbs"
	"iserblk/verbs/verbstest"
)

func TestAbortDrainsWhatIsOutstanding(t *testing.T) {
	w := full(t, iser.Options{})
	for range 10 {
		w.command(session.In, w.buf(0, 4096), 0)
	}
	if w.conn.Drained() {
		t.Fatal("drained before Abort")
	}
	w.peer.HoldFlush(true)
	w.conn.Abort()
	if err := w.drain(); err != nil {
		t.Fatal(err)
	}
	if w.conn.Drained() {
		t.Fatal("drained while the device holds work requests")
	}
	w.peer.HoldFlush(false)
	for range 100 {
		if _, err := w.conn.Poll(w); err != nil {
			t.Fatal(err)
		}
	}
	if !w.conn.Drained() {
		t.Error("not drained after every work request was flushed")
	}
	if len(w.got) != 0 {
		t.Error("a PDU was passed on after Abort")
	}
}

func TestLateRDMAAfterAbortIsRefused(t *testing.T) {
	w := full(t, iser.Options{})
	key, _ := w.keys()
	buf := w.buf(0, 4096)
	data := bytes.Repeat([]byte{1}, 4096)
	if err := w.peer.RDMAWrite(key, verbs.Addr(buf.Mem), data); err != nil {
		t.Fatal(err)
	}
	w.conn.Abort()
	clear(buf.Mem)
	if err := w.peer.RDMAWrite(key, verbs.Addr(buf.Mem), data); !errors.Is(err, verbstest.ErrGone) {
		t.Errorf("write after Abort: %v", err)
	}
	if err := w.peer.RDMARead(key, verbs.Addr(buf.Mem), data); !errors.Is(err, verbstest.ErrGone) {
		t.Errorf("read after Abort: %v", err)
	}
	if slices.Max(buf.Mem) != 0 {
		t.Error("the buffer was changed after Abort")
	}
}

func TestAnswersThatArrivedBeforeAbortAreNotPassedOnAfterIt(t *testing.T) {
	w := full(t, iser.Options{})
	if err := w.peer.Send(response(pdu.OpSCSIResponse, nil)); err != nil {
		t.Fatal(err)
	}
	w.conn.Abort()
	if err := w.drain(); err != nil {
		t.Fatal(err)
	}
	if len(w.got) != 0 || !w.conn.Drained() {
		t.Errorf("%d PDUs, drained %v", len(w.got), w.conn.Drained())
	}
}

func TestAbortFromWithinAPDUStopsTheRest(t *testing.T) {
	w := full(t, iser.Options{})
	n := 0
	w.onPDU = func(pdu.BHS, []byte) {
		n++
		w.conn.Abort()
	}
	for range 3 {
		if err := w.peer.Send(response(pdu.OpNOPIn, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.drain(); err != nil {
		t.Fatal(err)
	}
	if n != 1 || !w.conn.Drained() {
		t.Errorf("%d PDUs were passed on, drained %v", n, w.conn.Drained())
	}
}

func TestFailedSendNamesTheStatusAndNothingIsPostedAnyMore(t *testing.T) {
	w := full(t, iser.Options{})
	w.command(session.In, w.buf(0, 4096), 0)
	w.peer.Kill(verbs.StatusRetryExc)
	err := w.drain()
	if !errors.Is(err, verbs.StatusRetryExc) {
		t.Fatal(err)
	}
	if w.conn.Drained() {
		t.Error("drained without Abort")
	}
	w.conn.Abort()
	for range 10 {
		_, _ = w.conn.Poll(w)
	}
	if !w.conn.Drained() {
		t.Error("not drained")
	}
	if err := w.conn.Flush(); err == nil {
		t.Error("Flush after Abort succeeds")
	}
	if err := w.conn.EnableFullFeature(); err == nil {
		t.Error("EnableFullFeature after Abort succeeds")
	}
}

func TestWrongKeyOfTheTargetBreaksTheConnectionNotTheMemory(t *testing.T) {
	w := full(t, iser.Options{})
	_, writeKey := w.keys()
	buf := w.buf(0, 4096)
	err := w.peer.RDMAWrite(writeKey, verbs.Addr(buf.Mem), make([]byte, 512))
	if !errors.Is(err, verbs.StatusRemAccessErr) {
		t.Errorf("a write by the key for reading: %v", err)
	}
	if err := w.drain(); !errors.Is(err, verbs.StatusFlushed) {
		t.Errorf("the connection says %v", err)
	}
	if e := <-w.conn.Events(); e.Kind != verbs.EventQPError {
		t.Errorf("event %+v", e)
	}
}

func TestDisconnectIsAnEventAndLaterSendsFail(t *testing.T) {
	w := full(t, iser.Options{})
	w.peer.Disconnect()
	if e := <-w.conn.Events(); e.Kind != verbs.EventDisconnected {
		t.Errorf("event %+v", e)
	}
	w.command(session.NoData, session.Buffer{}, 0)
	if err := w.drain(); !errors.Is(err, verbs.StatusRetryExc) {
		t.Error(err)
	}
}

func TestFdIsReadableAfterArmWhenAPDUArrives(t *testing.T) {
	w := full(t, iser.Options{})
	if err := w.conn.Arm(); err != nil {
		t.Fatal(err)
	}
	if readable(t, w.conn.Fd(), 0) {
		t.Fatal("readable with nothing to poll")
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.peer.Send(response(pdu.OpNOPIn, nil)) })
	if !readable(t, w.conn.Fd(), 5*time.Second) {
		t.Fatal("not readable although a PDU has arrived")
	}
	wg.Wait()
	if err := w.drain(); err != nil || len(w.got) != 1 {
		t.Fatal(err, len(w.got))
	}
	if err := w.conn.Arm(); err != nil {
		t.Fatal(err)
	}
	if readable(t, w.conn.Fd(), 0) {
		t.Error("still readable after Arm")
	}
}

func readable(t *testing.T, fd int, d time.Duration) bool {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, int(d.Milliseconds()))
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

func TestStalledConnectionGoesOnWhereItWas(t *testing.T) {
	w := full(t, iser.Options{})
	w.peer.SetStalled(true)
	w.commands(sharedCompletion)
	if err := w.drain(); err != nil {
		t.Fatal(err)
	}
	w.peer.SetStalled(false)
	for range sharedCompletion {
		w.recv()
	}
	if n, err := w.conn.Poll(w); n != 1 || err != nil {
		t.Error(n, err)
	}
}
