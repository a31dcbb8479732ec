package iser_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

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
	return newWireOver(t, net, net, o)
}

// newWireOver dials through a provider that may change what net gives.
func newWireOver(t testing.TB, net *verbstest.Net, provider verbs.Provider, o iser.Options) *wire {
	t.Helper()
	w := &wire{t: t, net: net}
	var err error
	if w.listener, err = w.net.Portal(portal); err != nil {
		t.Fatal(err)
	}
	if w.arena, err = verbs.NewArena(16 << 20); err != nil {
		t.Fatal(err)
	}
	if w.region, err = w.arena.Carve(1<<20, verbs.AccessRemote); err != nil {
		t.Fatal(err)
	}
	o.Target, o.Arena = portal, w.arena
	if w.conn, err = iser.Dial(t.Context(), provider, o); err != nil {
		t.Fatal(err)
	}
	if w.peer, err = w.listener.AcceptPeer(t.Context()); err != nil {
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

// sharedCompletion is how many commands one send completion speaks for.
const sharedCompletion = 8

func (w *wire) commands(n int) {
	w.t.Helper()
	for range n {
		w.command(session.NoData, session.Buffer{}, 0)
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

// response is a message with a PDU of a target.
func response(op pdu.Opcode, data []byte) []byte {
	bhs := make([]byte, pdu.BHSLen)
	bhs[0] = byte(op)
	pdu.BHS(bhs).SetDataSegmentLength(len(data))
	return golden(0x10, 0, 0, 0, 0, bhs, data)
}
