package iser_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"iserblk/iser"
	"iserblk/session"
	"iserblk/session/pdu"
	"iserblk/verbs"
	"iserblk/verbs/verbstest"
)

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

func TestASecondCompletionOfOneSendEndsTheConnection(t *testing.T) {
	w := full(t, iser.Options{})
	w.commands(sharedCompletion)
	for range sharedCompletion {
		w.recv()
	}
	if err := w.drain(); err != nil {
		t.Fatal(err)
	}
	w.peer.Inject(verbs.WC{ID: 1 << 32})
	if err := w.drain(); !errors.Is(err, iser.ErrCompletion) {
		t.Error(err)
	}
}

// spares is how many receives may wait for others to be posted with: no answer to a command ever lacks one.
const spares = 8

func TestReceivesArePostedAgainTogetherAfterTheirPDUsWereHandled(t *testing.T) {
	w := full(t, iser.Options{MaxCommands: 1})
	before := w.peer.Posted()
	w.onPDU = func(pdu.BHS, []byte) {
		if n := w.peer.Posted(); n >= before {
			t.Errorf("%d receives posted while a PDU is being handled", n)
		}
	}
	for i := range 4 * spares {
		if err := w.peer.Send(response(pdu.OpNOPIn, nil)); err != nil {
			t.Fatal(err)
		}
		if err := w.drain(); err != nil {
			t.Fatal(err)
		}
		if n, want := w.peer.Posted(), before-(i+1)%spares; n != want {
			t.Errorf("%d receives posted after %d PDUs, want %d", n, i+1, want)
		}
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
	listener, err := net.Portal(portal)
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

// deaf connections take no receives.
type deaf struct{ *verbstest.Net }

func (d deaf) Dial(ctx context.Context, a verbs.DialAttr) (verbs.Conn, error) {
	c, err := d.Net.Dial(ctx, a)
	return deafConn{c}, err
}

type deafConn struct{ verbs.Conn }

func (deafConn) PostRecv([]verbs.RecvWR) (int, error) { return 0, verbs.ErrClosed }

func TestDialClosesAConnectionThatTakesNoReceive(t *testing.T) {
	net := verbstest.New()
	arena, err := verbs.NewArena(8 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer arena.Close()
	listener, err := net.Portal(portal)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if _, err := iser.Dial(t.Context(), deaf{net}, iser.Options{Target: portal, Arena: arena}); !errors.Is(err, verbs.ErrClosed) {
		t.Fatal(err)
	}
	if n := len(listener.Peers()); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	if r := arena.Regions(); r[0].Len != 0 {
		t.Errorf("region %+v is left", r[0])
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
