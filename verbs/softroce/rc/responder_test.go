package rc

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"iserblk/verbs"
	"iserblk/verbs/softroce/wire"
)

// said is what an answer says, in short.
type said struct {
	Opcode   wire.Opcode
	PSN      wire.PSN
	Syndrome wire.Syndrome
	MSN      uint32
}

func short(hs []wire.Header) (s []said) {
	for _, h := range hs {
		s = append(s, said{h.Opcode, h.PSN, h.Syndrome, h.MSN})
	}
	return s
}

func wantSaid(t *testing.T, hs []wire.Header, want ...said) {
	t.Helper()
	if d := cmp.Diff(want, short(hs)); d != "" {
		t.Error(d)
	}
}

func TestAGapIsReportedOnceUntilItIsFilled(t *testing.T) {
	v := newTarget(t)
	psn := v.qp.resp.expected
	send := func(i int) wire.Header { return wire.Header{Opcode: wire.SendOnly, PSN: psn.Add(i), AckReq: true} }
	wantSaid(t, v.tell(send(1), nil), said{wire.Ack, psn, wire.NakSequence, 0})
	wantSaid(t, v.tell(send(2), nil))
	wantSaid(t, v.tell(send(0), nil), said{wire.Ack, psn, wire.AckNoCredits, 1})
	wantSaid(t, v.tell(send(2), nil), said{wire.Ack, psn.Add(1), wire.NakSequence, 1})
}

func TestPacketsThatComeTogetherShareAnAcknowledgement(t *testing.T) {
	v := newTarget(t)
	psn := v.qp.resp.expected
	for i := range 3 {
		v.qp.PostBuffer(uint64(i), nil)
		v.qp.Receive(v.now, v.packet(wire.Header{Opcode: wire.SendOnly, PSN: psn.Add(i), AckReq: true}, nil))
	}
	wantSaid(t, v.answers(), said{wire.Ack, psn.Add(2), wire.AckNoCredits, 3})
}

func TestARequestThatComesAgainIsAcknowledgedAgainAndNotExecuted(t *testing.T) {
	v := newTarget(t)
	h := wire.Header{Opcode: wire.WriteOnly, PSN: v.qp.resp.expected, RKey: v.writeKey, VA: memAddr, Length: 5, AckReq: true}
	ack := said{wire.Ack, h.PSN, wire.AckNoCredits, 1}
	wantSaid(t, v.tell(h, []byte("first")), ack)
	copy(v.writable, "later")
	wantSaid(t, v.tell(h, []byte("first")), ack)
	if string(v.writable[:5]) != "later" {
		t.Errorf("%q", v.writable[:5])
	}
	if v.qp.Stats().Duplicates != 1 {
		t.Errorf("%+v", v.qp.Stats())
	}
}

func TestARequestThatComesAgainIsNotAcknowledgedTogetherWithALaterRead(t *testing.T) {
	v := newTarget(t)
	psn := v.qp.resp.expected
	write := wire.Header{Opcode: wire.WriteOnly, PSN: psn, RKey: v.writeKey, VA: memAddr, Length: 5, AckReq: true}
	v.tell(write, []byte("first"))
	v.tell(wire.Header{Opcode: wire.ReadRequest, PSN: psn.Add(1), RKey: v.readKey, VA: memAddr, Length: 300}, nil)
	// An ACK for the PSN that is the last of the READ would pass for its answer, without the data.
	wantSaid(t, v.tell(write, []byte("first")), said{wire.Ack, psn, wire.AckNoCredits, 2})
}

func TestAReadThatComesAgainIsAnsweredAgain(t *testing.T) {
	v := newTarget(t)
	psn := v.qp.resp.expected
	whole := wire.Header{Opcode: wire.ReadRequest, PSN: psn, RKey: v.readKey, VA: memAddr, Length: 600}
	all := []said{
		{wire.ReadResponseFirst, psn, wire.AckNoCredits, 1},
		{wire.ReadResponseMiddle, psn.Add(1), 0, 0},
		{wire.ReadResponseLast, psn.Add(2), wire.AckNoCredits, 1},
	}
	wantSaid(t, v.tell(whole, nil), all...)
	wantSaid(t, v.tell(whole, nil), all...)
	rest := whole
	rest.PSN, rest.VA, rest.Length = psn.Add(2), memAddr+512, 88
	wantSaid(t, v.tell(rest, nil), said{wire.ReadResponseOnly, psn.Add(2), wire.AckNoCredits, 1})
	v.qp.Receive(v.now, v.packet(whole, nil))
	v.qp.Receive(v.now, v.packet(whole, nil)) // the first of these has not been answered yet
	wantSaid(t, v.answers(), all...)
	v.mem.Revoke(v.readKey)
	wantSaid(t, v.tell(whole, nil))
}

func TestMoreReadsThanAgreedOnAreRefused(t *testing.T) {
	v := newTarget(t)
	psn := v.qp.resp.expected
	for i := range testConfig().IRD + 1 {
		h := wire.Header{Opcode: wire.ReadRequest, PSN: psn.Add(i), RKey: v.readKey, VA: memAddr, Length: 10}
		v.qp.Receive(v.now, v.packet(h, nil))
	}
	as := v.answers()
	if last := as[len(as)-1]; len(as) != testConfig().IRD+1 || last.Syndrome != wire.NakInvalidRequest {
		t.Errorf("%+v", short(as))
	}
}

func TestAWindowThatClosesCutsATransferOff(t *testing.T) {
	v := newTarget(t)
	psn := v.qp.resp.expected
	first := wire.Header{Opcode: wire.WriteFirst, PSN: psn, RKey: v.writeKey, VA: memAddr, Length: 512}
	wantSaid(t, v.tell(first, bytes.Repeat([]byte{1}, 256)))
	v.mem.Revoke(v.writeKey)
	wantSaid(t, v.tell(wire.Header{Opcode: wire.WriteLast, PSN: psn.Add(1)}, bytes.Repeat([]byte{1}, 256)),
		said{wire.Ack, psn.Add(1), wire.NakRemoteAccess, 0})
	if bytes.Count(v.writable, []byte{1}) != 256 {
		t.Error("the rest was written")
	}

	v = newTarget(t)
	v.qp.Receive(v.now, v.packet(wire.Header{Opcode: wire.ReadRequest, PSN: psn, RKey: v.readKey, VA: memAddr, Length: 512}, nil))
	var p Packet
	v.qp.Next(v.now, &p)
	v.mem.Revoke(v.readKey)
	wantSaid(t, v.answers(), said{wire.Ack, psn.Add(1), wire.NakRemoteAccess, 1})
	if v.qp.out.reads != 0 || v.qp.Status() != verbs.StatusSuccess {
		t.Error("the READ still counts")
	}
}

func TestAMessageThatIsTooLongEndsTheConnection(t *testing.T) {
	v := newTarget(t)
	v.qp.PostBuffer(2, nil)
	v.qp.PostMessage(3, nil)
	psn := v.qp.resp.expected
	full := make([]byte, 256)
	v.tell(wire.Header{Opcode: wire.SendFirst, PSN: psn}, full)
	for i := 1; i < 3; i++ {
		v.tell(wire.Header{Opcode: wire.SendMiddle, PSN: psn.Add(i)}, full)
	}
	as := v.tell(wire.Header{Opcode: wire.SendLast, PSN: psn.Add(3)}, full[:233]) // 1001 bytes
	wantSaid(t, as, said{wire.Ack, psn.Add(3), wire.NakInvalidRequest, 0})
	wantStatuses(t, v.poll(), []uint64{1, 3, 2}, verbs.StatusLocLenErr, flushed, flushed)
	if v.qp.Status() != verbs.StatusLocLenErr {
		t.Error(v.qp.Status())
	}
}

func TestASendThatInvalidatesAKeySaysWhich(t *testing.T) {
	v := newTarget(t)
	v.tell(wire.Header{Opcode: wire.SendOnlyInvalidate, PSN: v.qp.resp.expected, InvRKey: 0xdead}, []byte("x"))
	wcs := v.poll()
	if len(wcs) != 1 || wcs[0].Flags != verbs.WCWithInv || wcs[0].InvRKey != 0xdead || wcs[0].Len != 1 {
		t.Errorf("%+v", wcs)
	}
}

func TestATransferOfNothingNeedsNoKey(t *testing.T) {
	v := newTarget(t)
	psn := v.qp.resp.expected
	wantSaid(t, v.tell(wire.Header{Opcode: wire.WriteOnly, PSN: psn, AckReq: true}, nil), said{wire.Ack, psn, wire.AckNoCredits, 1})
	wantSaid(t, v.tell(wire.Header{Opcode: wire.ReadRequest, PSN: psn.Add(1)}, nil),
		said{wire.ReadResponseOnly, psn.Add(1), wire.AckNoCredits, 2})
}

func TestAnAcknowledgementNeverOvertakesTheAnswerToARead(t *testing.T) {
	v := newTarget(t)
	psn := v.qp.resp.expected
	for _, h := range []wire.Header{
		{Opcode: wire.ReadRequest, PSN: psn, RKey: v.readKey, VA: memAddr, Length: 300},
		{Opcode: wire.SendOnly, PSN: psn.Add(2), AckReq: true},
	} {
		v.qp.Receive(v.now, v.packet(h, nil))
	}
	wantSaid(t, v.answers(), said{wire.ReadResponseFirst, psn, wire.AckNoCredits, 1},
		said{wire.ReadResponseLast, psn.Add(1), wire.AckNoCredits, 1}, said{wire.Ack, psn.Add(2), wire.AckNoCredits, 2})
}

func TestWhoHasNoBufferIsNotTakenToHaveOneByAnOlderRequest(t *testing.T) {
	v := newTarget(t)
	psn := v.qp.resp.expected
	v.tell(wire.Header{Opcode: wire.SendOnly, PSN: psn}, nil)
	v.qp.Receive(v.now, v.packet(wire.Header{Opcode: wire.SendOnly, PSN: psn.Add(1), AckReq: true}, nil))
	v.qp.Receive(v.now, v.packet(wire.Header{Opcode: wire.SendOnly, PSN: psn, AckReq: true}, nil))
	v.qp.Receive(v.now, v.packet(wire.Header{Opcode: wire.SendOnly, PSN: psn.Add(2), AckReq: true}, nil))
	wantSaid(t, v.answers(), said{wire.Ack, psn.Add(1), wire.RNRNak(testConfig().RNRTimer), 1})
}
