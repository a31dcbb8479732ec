package iser_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"iserblk/iser"
	"iserblk/session"
	"iserblk/session/pdu"
	"iserblk/verbs"
	"iserblk/verbs/verbstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var portal = netip.MustParseAddrPort("10.0.0.1:3260")

// wire is a connection whose far end the test holds.
type wire struct {
	t        testing.TB
	net      *verbstest.Net
	listener *verbstest.Listener
	arena    *verbs.Arena
	region   verbs.RegionID
	conn     *iser.Conn
	peer     *verbstest.Peer
	got      []message
	onPDU    func(pdu.BHS, []byte) // called for each PDU when not nil
}

// message is a PDU that was passed up.
type message struct{ BHS, Data []byte }

func (w *wire) HandlePDU(bhs pdu.BHS, data []byte) {
	if w.onPDU != nil {
		w.onPDU(bhs, data)
		return
	}
	w.got = append(w.got, message{slices.Clone([]byte(bhs)), slices.Clone(data)})
}

func newWire(t testing.TB, net *verbstest.Net, o iser.Options) *wire {
	t.Helper()
	w := &wire{t: t, net: net}
	var err error
	if w.listener, err = w.net.Listen(portal); err != nil {
		t.Fatal(err)
	}
	if w.arena, err = verbs.NewArena(16 << 20); err != nil {
		t.Fatal(err)
	}
	if w.region, err = w.arena.Carve(1<<20, verbs.AccessRemote); err != nil {
		t.Fatal(err)
	}
	o.Target, o.Arena = portal, w.arena
	if w.conn, err = iser.Dial(t.Context(), w.net, o); err != nil {
		t.Fatal(err)
	}
	if w.peer, err = w.listener.Accept(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

func (w *wire) close() {
	if err := w.conn.Close(); err != nil {
		w.t.Error(err)
	}
	_ = w.listener.Close()
	if err := w.arena.Close(); err != nil {
		w.t.Error(err)
	}
}

// full is a connection in its full-feature phase.
func full(t testing.TB, o iser.Options) *wire {
	t.Helper()
	w := newWire(t, verbstest.New(), o)
	if err := w.conn.EnableFullFeature(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *wire) buf(off, n int) session.Buffer {
	return session.Buffer{Mem: w.arena.Mem(w.region)[off : off+n], Region: uint32(w.region)}
}

// keys are the keys of the buffers' region, as the target learns them from a read and a write.
func (w *wire) keys() (read, write uint32) {
	w.t.Helper()
	w.command(session.In, w.buf(0, 512), 0)
	w.command(session.Out, w.buf(0, 512), 0)
	r, wr := w.recv(), w.recv()
	return binary.BigEndian.Uint32(r[16:]), binary.BigEndian.Uint32(wr[4:])
}

func (w *wire) command(dir session.Direction, buf session.Buffer, immediate int) {
	w.t.Helper()
	bhs := command(dir, len(buf.Mem), immediate)
	if err := w.conn.SendCommand(&bhs, dir, buf, immediate); err != nil {
		w.t.Fatal(err)
	}
	if err := w.conn.Flush(); err != nil {
		w.t.Fatal(err)
	}
}

func command(dir session.Direction, edtl, immediate int) (bhs [pdu.BHSLen]byte) {
	pdu.SCSICommandFields{
		Final: true, Read: dir == session.In, Write: dir == session.Out, Attr: pdu.AttrSimple,
		ITT: 7, EDTL: uint32(edtl), CmdSN: 9, ExpStatSN: 11, DataLen: immediate,
	}.Encode(bhs[:])
	return bhs
}

// recv is the next message at the target.
func (w *wire) recv() []byte {
	w.t.Helper()
	buf := make([]byte, 1<<17)
	n, err := w.peer.Recv(w.t.Context(), buf)
	if err != nil {
		w.t.Fatal(err)
	}
	return buf[:n]
}

// drain takes completions until none are left.
func (w *wire) drain() error {
	for {
		n, err := w.conn.Poll(w)
		if err != nil || n == 0 {
			return err
		}
	}
}

// golden builds a header by hand.
func golden(flags byte, writeKey uint32, writeVA uint64, readKey uint32, readVA uint64, bhs, data []byte) []byte {
	b := []byte{flags, 0, 0, 0}
	b = binary.BigEndian.AppendUint32(b, writeKey)
	b = binary.BigEndian.AppendUint64(b, writeVA)
	b = binary.BigEndian.AppendUint32(b, readKey)
	b = binary.BigEndian.AppendUint64(b, readVA)
	return append(append(b, bhs...), data...)
}

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
	w.recv()
	if err := w.drain(); err != nil {
		t.Fatal(err)
	}
	if err := w.conn.SendCommand(&bhs, session.NoData, session.Buffer{}, 0); err != nil {
		t.Fatal(err)
	}
}

func TestLoginHasOneReceiveAndFullFeatureAllOfThem(t *testing.T) {
	w := newWire(t, verbstest.New(), iser.Options{MaxCommands: 10})
	answer := response(pdu.OpLoginResponse, make([]byte, 8192))
	for i := range 3 {
		if n := w.peer.Posted(); n != 1 {
			t.Fatalf("step %d of login: %d receives posted", i, n)
		}
		if err := w.peer.Send(answer); err != nil {
			t.Fatal(err)
		}
		if err := w.drain(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.conn.EnableFullFeature(); err != nil {
		t.Fatal(err)
	}
	if n, want := w.peer.Posted(), 10+16; n != want {
		t.Errorf("%d receives posted, want %d", n, want)
	}
	for range 200 {
		if err := w.peer.Send(answer); err != nil {
			t.Fatal(err)
		}
		if err := w.drain(); err != nil {
			t.Fatal(err)
		}
	}
	if n, want := w.peer.Posted(), 10+16; n != want {
		t.Errorf("%d receives posted after 200 answers, want %d", n, want)
	}
	if len(w.got) != 203 {
		t.Errorf("%d PDUs were passed on, want 203", len(w.got))
	}
}

// response is a message with a PDU of a target.
func response(op pdu.Opcode, data []byte) []byte {
	bhs := make([]byte, pdu.BHSLen)
	bhs[0] = byte(op)
	pdu.BHS(bhs).SetDataSegmentLength(len(data))
	return golden(0x10, 0, 0, 0, 0, bhs, data)
}

func TestPDUsArePassedOnInOrderAndWithoutPadding(t *testing.T) {
	w := full(t, iser.Options{})
	var want []message
	for n := range 9 {
		data := bytes.Repeat([]byte{byte(n)}, n)
		msg := response(pdu.OpSCSIResponse, data)
		want = append(want, message{slices.Clone(msg[28:76]), data})
		for len(msg)%4 != 0 {
			msg = append(msg, 0xee)
		}
		if err := w.peer.Send(msg); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.drain(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, w.got, cmp.Transformer("len", func(b []byte) string { return fmt.Sprintf("%x", b) })); diff != "" {
		t.Error(diff)
	}
}

func TestMalformedMessagesEndTheConnectionWithANamedError(t *testing.T) {
	long := response(pdu.OpSCSIResponse, make([]byte, 8))
	edit := func(off int, v byte) []byte {
		b := slices.Clone(long)
		b[off] = v
		return b
	}
	for name, c := range map[string]struct {
		msg  []byte
		want error
	}{
		"empty":               {nil, iser.ErrTruncated},
		"headers cut":         {long[:75], iser.ErrTruncated},
		"hello":               {edit(0, 0x20), iser.ErrHello},
		"hello reply":         {edit(0, 0x30), iser.ErrHello},
		"unknown type":        {edit(0, 0x00), iser.ErrHeader},
		"all type bits":       {edit(0, 0xf0), iser.ErrHeader},
		"additional header":   {edit(28+4, 1), iser.ErrAHS},
		"data cut":            {long[:len(long)-1], iser.ErrDataLength},
		"data of 16 MiB":      {edit(28+5, 0xff), iser.ErrDataLength},
		"too much padding":    {append(slices.Clone(long), 0, 0, 0, 0), iser.ErrDataLength},
		"longer than 8 KiB":   {make([]byte, 76+8193), verbs.StatusLocLenErr},
		"data without length": {edit(28+7, 0), iser.ErrDataLength},
	} {
		t.Run(name, func(t *testing.T) {
			w := full(t, iser.Options{})
			_ = w.peer.Send(c.msg)
			err := w.drain()
			var e *iser.Error
			if !errors.Is(err, c.want) || !errors.As(err, &e) {
				t.Fatalf("error is %v, want %v", err, c.want)
			}
			_ = w.peer.Send(long)
			if again := w.drain(); !errors.Is(again, c.want) {
				t.Errorf("a later Poll says %v", again)
			}
			if len(w.got) != 0 {
				t.Error("a PDU was passed on")
			}
			bhs := command(session.NoData, 0, 0)
			if err := w.conn.SendCommand(&bhs, session.NoData, session.Buffer{}, 0); !errors.Is(err, c.want) {
				t.Errorf("a command on the lost connection: %v", err)
			}
		})
	}
}

func TestUnexpectedInvalidationEndsTheConnection(t *testing.T) {
	w := full(t, iser.Options{})
	key, _ := w.keys()
	if err := w.peer.SendWithInvalidate(response(pdu.OpSCSIResponse, nil), key); err != nil {
		t.Fatal(err)
	}
	if err := w.drain(); !errors.Is(err, iser.ErrInvalidated) || len(w.got) != 0 {
		t.Errorf("error %v, %d PDUs", err, len(w.got))
	}
}

func TestCompletionsOfUnknownWorkEndTheConnection(t *testing.T) {
	for _, wc := range []verbs.WC{
		{ID: 1 << 20, Op: verbs.WCRecv}, {ID: 1<<32 | 3}, {ID: 1<<32 | 1<<30}, {ID: ^uint64(0)},
	} {
		w := full(t, iser.Options{})
		w.peer.Inject(wc)
		if err := w.drain(); !errors.Is(err, iser.ErrCompletion) {
			t.Errorf("%+v: %v", wc, err)
		}
	}
}

func TestAReceiveIsPostedAgainOnlyAfterItsPDUWasHandled(t *testing.T) {
	w := full(t, iser.Options{MaxCommands: 1})
	before := w.peer.Posted()
	w.onPDU = func(pdu.BHS, []byte) {
		if n := w.peer.Posted(); n >= before {
			t.Errorf("%d receives posted while a PDU is being handled", n)
		}
	}
	if err := w.peer.Send(response(pdu.OpNOPIn, nil)); err != nil {
		t.Fatal(err)
	}
	if err := w.drain(); err != nil {
		t.Fatal(err)
	}
	if n := w.peer.Posted(); n != before {
		t.Errorf("%d receives posted afterwards, want %d", n, before)
	}
}

func TestDialLeavesNothingBehindWhenItFails(t *testing.T) {
	net := verbstest.New()
	arena, err := verbs.NewArena(8 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer arena.Close()
	for range 20 {
		_, err := iser.Dial(t.Context(), net, iser.Options{Target: portal, Arena: arena})
		if !errors.Is(err, verbs.ErrRejected) {
			t.Fatal(err)
		}
	}
	listener, err := net.Listen(portal)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	listener.SetSilent(true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := iser.Dial(ctx, net, iser.Options{Target: portal, Arena: arena}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, r := range arena.Regions() {
		if r.Len != 0 {
			t.Errorf("region %+v is left", r)
		}
	}
}

func TestCloseGivesTheRegionBackAndMayBeRepeated(t *testing.T) {
	w := full(t, iser.Options{})
	used := w.arena.Used()
	for range 3 {
		if err := w.conn.Close(); err != nil {
			t.Fatal(err)
		}
		c, err := iser.Dial(t.Context(), w.net, iser.Options{Target: portal, Arena: w.arena})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(c.Close(), c.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if w.arena.Used() != used {
		t.Errorf("the arena grew from %d to %d bytes", used, w.arena.Used())
	}
}
