package rc

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"iserblk/verbs"
	"iserblk/verbs/softroce/wire"
)

// statuses lists what the completions say, by ID.
func statuses(wcs []verbs.WC) (ids []uint64, ss []verbs.Status) {
	for _, wc := range wcs {
		ids, ss = append(ids, wc.ID), append(ss, wc.Status)
	}
	return ids, ss
}

func wantStatuses(t *testing.T, wcs []verbs.WC, ids []uint64, ss ...verbs.Status) {
	t.Helper()
	gotIDs, got := statuses(wcs)
	if d := cmp.Diff(ids, gotIDs) + cmp.Diff(ss, got); d != "" {
		t.Error(d)
	}
}

const flushed = verbs.StatusFlushed

func mustPost(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestAPeerThatIsSilentIsGivenUpInTime(t *testing.T) {
	n := newNetwork(t, func(a, _ *Config) { a.AckTimeout, a.RetryCount = 100*time.Millisecond, 2 })
	a := n.ends[0]
	b := make([]byte, 600)
	mustPost(t, a.qp.PostBuffer(9, b), a.qp.PostMessage(1, b), a.qp.PostRead(2, 3, 4, b), a.qp.PostWrite(3, 3, 4, b))
	n.now = time.Hour
	for i := range 10000 {
		n.planned[i] = lost
	}
	n.settle()
	if took := n.now - time.Hour; took != 300*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	wantStatuses(t, a.poll(), []uint64{1, 2, 3, 9}, verbs.StatusRetryExc, flushed, flushed, flushed)
	if a.qp.Status() != verbs.StatusRetryExc || a.qp.stats.Timeouts < 2 {
		t.Errorf("%v, %+v", a.qp.Status(), a.qp.stats)
	}
	mustPost(t, a.qp.PostMessage(4, b), a.qp.PostBuffer(5, b))
	wantStatuses(t, a.poll(), []uint64{4, 5}, flushed, flushed)
	if _, waits := a.qp.Deadline(); waits {
		t.Error("a dead queue pair waits for something")
	}
}

func TestAPeerThatAnswersNowAndThenIsNotGivenUp(t *testing.T) {
	n := newNetwork(t, func(a, _ *Config) { a.AckTimeout, a.RetryCount = 100*time.Millisecond, 49 })
	a, b := n.ends[0], n.ends[1]
	big := make([]byte, 64*256)
	mustPost(t, b.qp.PostBuffer(1, make([]byte, len(big))), a.qp.PostMessage(1, big))
	dice := rand.New(rand.NewPCG(1, 1))
	for i := range 10000 {
		if dice.IntN(4) != 0 {
			n.planned[i] = lost
		}
	}
	n.run(t, func() bool { return a.qp.Pending() > 0 })
	wantStatuses(t, a.poll(), []uint64{1}, verbs.StatusSuccess)
	if n.now < 5*time.Second {
		t.Errorf("it took %v only", n.now)
	}
}

func TestAPeerWithoutBuffersIsAskedAgain(t *testing.T) {
	n := newNetwork(t, nil)
	a, b := n.ends[0], n.ends[1]
	mustPost(t, a.qp.PostMessage(1, []byte("one")), a.qp.PostMessage(2, []byte("two")))
	a.pump()
	for n.now < 10*time.Millisecond {
		n.step()
	}
	if s := b.qp.stats.RNRNaksSent; s < 5 || s > 12 {
		t.Errorf("%d RNR NAKs in 10 ms", s)
	}
	buf := make([]byte, 10)
	mustPost(t, b.qp.PostBuffer(1, buf), b.qp.PostBuffer(2, make([]byte, 10)))
	n.run(t, func() bool { return a.qp.Pending() == 2 })
	if string(buf[:3]) != "one" || b.qp.Pending() != 2 {
		t.Errorf("%q", buf)
	}
}

func TestAPeerThatNeverHasBuffersIsGivenUp(t *testing.T) {
	n := newNetwork(t, func(a, _ *Config) { a.RNRRetry = 3 })
	a := n.ends[0]
	mustPost(t, a.qp.PostMessage(1, nil), a.qp.PostMessage(2, nil))
	n.settle()
	wantStatuses(t, a.poll(), []uint64{1, 2}, verbs.StatusRNRRetryExc, flushed)
	if got := a.qp.Stats().RNRNaks; got != 4 {
		t.Errorf("%d NAKs", got)
	}
}

func TestWhatThePeerRefusesFailsWithItsReason(t *testing.T) {
	for s, want := range map[wire.Syndrome]verbs.Status{
		wire.NakInvalidRequest: StatusRemInvReq, wire.NakRemoteAccess: verbs.StatusRemAccessErr, wire.NakRemoteOperation: StatusRemOpErr,
	} {
		v := newTarget(t)
		first := v.qp.req.oldest
		mustPost(t, v.qp.PostMessage(1, nil), v.qp.PostMessage(2, nil), v.qp.PostMessage(3, nil))
		v.answers()
		v.tell(wire.Header{Opcode: wire.Ack, PSN: first.Add(1), Syndrome: s}, nil)
		wantStatuses(t, v.poll(), []uint64{1, 2, 3, 1}, verbs.StatusSuccess, want, flushed, flushed)
		if v.qp.Status() != want {
			t.Errorf("%v", v.qp.Status())
		}
	}
}

func TestAWrongKeyFailsAtTheRequesterAndLeavesTheResponderAlone(t *testing.T) {
	n := newNetwork(t, nil)
	a, b := n.ends[0], n.ends[1]
	mem := make([]byte, 100)
	key := b.mem.Register(mem, 0, PeerReads)
	mustPost(t, a.qp.PostRead(1, key, 0, make([]byte, 100)), a.qp.PostWrite(2, key, 0, []byte("evil")), a.qp.PostMessage(3, nil))
	n.settle()
	wantStatuses(t, a.poll(), []uint64{1, 2, 3}, verbs.StatusSuccess, verbs.StatusRemAccessErr, flushed)
	if b.qp.Status() != verbs.StatusSuccess || !bytes.Equal(mem, make([]byte, 100)) || b.qp.Stats().AccessRefused == 0 {
		t.Errorf("%v %+v", b.qp.Status(), b.qp.Stats())
	}
}

func TestAbortFlushesEverythingInOrder(t *testing.T) {
	v := newTarget(t)
	b := make([]byte, 2000)
	mustPost(t, v.qp.PostMessage(10, b), v.qp.PostWrite(11, 1, 1, b), v.qp.PostRead(12, 1, 1, b), v.qp.PostBuffer(2, b))
	v.answers()
	read := wire.Header{Opcode: wire.ReadRequest, PSN: v.qp.resp.expected, RKey: v.readKey, VA: memAddr, Length: 4096}
	v.qp.Receive(v.now, v.packet(read, nil))
	v.qp.Abort()
	v.qp.Abort()
	wantStatuses(t, v.poll(), []uint64{10, 11, 12, 1, 2}, flushed, flushed, flushed, flushed, flushed)
	write := wire.Header{Opcode: wire.WriteOnly, PSN: v.qp.resp.expected, RKey: v.writeKey, VA: memAddr, Length: 4}
	if as := v.tell(write, []byte("late")); len(as) != 0 || v.writable[0] != 0 {
		t.Errorf("a dead queue pair answers: %+v", as)
	}
	if v.qp.Status() != flushed {
		t.Error(v.qp.Status())
	}
}

func TestUnsignaledSendsCompleteOnlyWhenTheyFail(t *testing.T) {
	n := newNetwork(t, nil)
	a, b := n.ends[0], n.ends[1]
	mustPost(t, b.qp.PostBuffer(1, nil), b.qp.PostBuffer(2, nil))
	wrs := []verbs.SendWR{{ID: 1}, {ID: 2, Signaled: 1}}
	if k, err := a.qp.PostSend(wrs); k != 2 || err != nil {
		t.Fatal(k, err)
	}
	n.settle()
	wantStatuses(t, a.poll(), []uint64{2}, verbs.StatusSuccess)
	a.qp.PostSend(wrs[:1])
	a.qp.Abort()
	wantStatuses(t, a.poll(), []uint64{1}, flushed)
}

func TestNoMoreIsPostedThanThereIsRoomFor(t *testing.T) {
	n := newNetwork(t, nil)
	q := n.ends[0].qp
	wrs := make([]verbs.SendWR, 20)
	if k, err := q.PostSend(wrs); k != 16 || err != ErrFull {
		t.Fatal(k, err)
	}
	for i := range 8 {
		mustPost(t, q.PostBuffer(uint64(i), nil))
	}
	if err := q.PostBuffer(9, nil); err != ErrFull {
		t.Error(err)
	}
	q.Abort()
	if k, err := q.PostSend(wrs); k != 0 || err != ErrFull {
		t.Error("completions that nobody has taken have no room beside them", k, err)
	}
	if k := len(n.ends[0].poll()); k != 24 {
		t.Errorf("%d completions", k)
	}
	if k, err := q.PostSend(wrs[:16]); k != 16 || err != nil {
		t.Error(k, err)
	}
}

func TestWrongWorkRequestsAreRefused(t *testing.T) {
	n := newNetwork(t, func(a, _ *Config) { a.ORD = 0 })
	e := n.ends[0]
	mem := make([]byte, 100)
	key := e.mem.Register(mem, 1000, Local)
	sge := verbs.SGE{Addr: 1000, Len: 100, LKey: key}
	bad := sge
	bad.LKey++
	long := sge
	long.Len++
	for name, c := range map[string]struct {
		wr   verbs.SendWR
		want error
	}{
		"a wrong key":       {verbs.SendWR{NumSGE: 1, SGE: [2]verbs.SGE{bad}}, ErrKey},
		"too long a piece":  {verbs.SendWR{NumSGE: 2, SGE: [2]verbs.SGE{sge, long}}, ErrKey},
		"too many pieces":   {verbs.SendWR{NumSGE: 3, SGE: [2]verbs.SGE{sge, sge}}, ErrTooLong},
		"too much inline":   {verbs.SendWR{NumSGE: 1, SGE: [2]verbs.SGE{sge}, Inline: 1}, ErrTooLong},
		"nowhere inline":    {verbs.SendWR{NumSGE: 1, SGE: [2]verbs.SGE{{Addr: 1, Len: 1}}, Inline: 1}, ErrKey},
		"inline, wrong key": {verbs.SendWR{NumSGE: 1, SGE: [2]verbs.SGE{{Addr: 1001, Len: 9, LKey: bad.LKey}}, Inline: 1}, nil},
	} {
		if _, err := e.qp.PostSend([]verbs.SendWR{c.wr}); err != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if k, err := e.qp.PostRecv([]verbs.RecvWR{{SGE: sge}, {SGE: bad}}); k != 1 || err != ErrKey {
		t.Error(k, err)
	}
	if k, err := e.qp.PostRecv([]verbs.RecvWR{{SGE: verbs.SGE{Addr: 1000, Len: 3}}}); k != 1 || err != nil {
		t.Error("a receive without a key is not found by its address", err)
	}
	if err := e.qp.PostRead(1, 1, 1, mem); err != ErrFull {
		t.Error("a READ was posted that the peer has no room for", err)
	}
}

func TestAQueuePairThatCannotWorkIsNotMade(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no MTU": func(c *Config) { c.MTU = 0 }, "odd MTU": func(c *Config) { c.MTU = 1500 }, "big MTU": func(c *Config) { c.MTU = 8192 },
		"no memory": func(c *Config) { c.Memory = nil }, "no depth": func(c *Config) { c.SendDepth = 0 },
		"25 bits": func(c *Config) { c.SendPSN = 1 << 24 }, "RNR code": func(c *Config) { c.RNRTimer = 32 },
	} {
		c := testConfig()
		c.Memory = NewMemory([32]byte{})
		change(&c)
		if _, err := New(c); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := testConfig()
	c.Memory, c.AckTimeout, c.Window = NewMemory([32]byte{}), 0, 0
	if q, err := New(c); err != nil || q.Config().AckTimeout != defaultTimeout || q.Config().Window != defaultWindow {
		t.Error(err)
	}
}

func TestEveryMessageAsksForAnAcknowledgementAtItsEnd(t *testing.T) {
	v := newTarget(t)
	mustPost(t, v.qp.PostMessage(1, make([]byte, 600)), v.qp.PostWrite(2, 1, 1, nil))
	as := v.answers()
	if len(as) != 4 || as[0].AckReq || !as[2].AckReq || !as[3].AckReq {
		t.Errorf("%+v", as)
	}
}

func TestReadsDoNotWaitForEachOther(t *testing.T) {
	v := newTarget(t)
	mustPost(t, v.qp.PostRead(1, 1, 1, make([]byte, 300)), v.qp.PostRead(2, 1, 1, nil), v.qp.PostMessage(3, nil))
	if as := v.answers(); len(as) != 3 {
		t.Errorf("%+v", as)
	}
}

func TestNoMoreReadsAreUnderWayThanAgreedOn(t *testing.T) {
	v := newTarget(t)
	for i := range uint64(testConfig().ORD + 2) {
		mustPost(t, v.qp.PostRead(i, 1, 1, make([]byte, 10)))
	}
	first := v.qp.req.oldest
	if as := v.answers(); len(as) != testConfig().ORD {
		t.Errorf("%d READs at first", len(as))
	}
	v.qp.Receive(v.now, v.packet(wire.Header{Opcode: wire.ReadResponseOnly, PSN: first, Syndrome: wire.AckNoCredits}, make([]byte, 10)))
	if as := v.answers(); len(as) != 1 {
		t.Errorf("%d READs when one is done", len(as))
	}
}

func TestANakThatTheNetworkDoublesCountsOnce(t *testing.T) {
	v := newTarget(t)
	mustPost(t, v.qp.PostMessage(1, make([]byte, 2000)))
	first := v.qp.req.oldest
	v.answers()
	nak := wire.Header{Opcode: wire.Ack, PSN: first.Add(2), Syndrome: wire.NakSequence}
	if again := v.tell(nak, nil); len(again) != leastWindow || again[0].PSN != nak.PSN {
		t.Errorf("these come again: %+v", again)
	}
	if again := len(v.tell(nak, nil)); again != 0 {
		t.Errorf("%d packets come again once more", again)
	}
}

func TestAnAcknowledgementThatComesLateSparesTheRepetition(t *testing.T) {
	for name, repeated := range map[string]bool{"before packets are repeated": false, "after some of them were": true} {
		t.Run(name, func(t *testing.T) {
			v := newTarget(t)
			first := v.qp.req.oldest
			mustPost(t, v.qp.PostMessage(1, make([]byte, 2000)), v.qp.PostMessage(2, nil))
			v.answers()
			v.now, _ = v.qp.Deadline()
			v.qp.Tick(v.now)
			if repeated {
				v.answers()
			}
			if as := v.tell(wire.Header{Opcode: wire.Ack, PSN: first.Add(7), Syndrome: wire.AckNoCredits}, nil); len(as) != 1 || as[0].PSN != first.Add(8) {
				t.Errorf("%+v", as)
			}
			v.tell(wire.Header{Opcode: wire.Ack, PSN: first.Add(8), Syndrome: wire.AckNoCredits}, nil)
			wantStatuses(t, v.poll(), []uint64{1, 2}, verbs.StatusSuccess, verbs.StatusSuccess)
			mustPost(t, v.qp.PostMessage(3, nil))
			if as := v.answers(); len(as) != 1 || as[0].PSN != first.Add(9) {
				t.Errorf("%+v", as)
			}
		})
	}
}

func TestAReadWhoseAnswerHasAGapIsRepeatedFromThere(t *testing.T) {
	v := newTarget(t)
	buf := make([]byte, 6*256)
	mustPost(t, v.qp.PostRead(1, 1, 1000, buf))
	first := v.qp.req.oldest
	v.answers()
	full := bytes.Repeat([]byte{7}, 256)
	response := func(o wire.Opcode, i int) []wire.Header {
		return v.tell(wire.Header{Opcode: o, PSN: first.Add(i), Syndrome: wire.AckNoCredits}, full)
	}
	response(wire.ReadResponseFirst, 0)
	var again []wire.Header
	for i := 2; i < 5; i++ {
		again = append(again, response(wire.ReadResponseMiddle, i)...)
	}
	if len(again) != 1 || again[0].PSN != first.Add(1) || again[0].VA != 1000+256 || again[0].Length != 5*256 {
		t.Fatalf("%+v", again)
	}
	if more := response(wire.ReadResponseLast, 5); len(more) != 0 {
		t.Errorf("%+v", more)
	}
	for i := 1; i < 6; i++ {
		response(wire.ReadResponseMiddle, i) // whichever it is of
	}
	wantStatuses(t, v.poll(), []uint64{1}, verbs.StatusSuccess)
	if bytes.Count(buf, []byte{7}) != len(buf) {
		t.Error("not all data has come")
	}
}

func TestAPeerThatAsksToWaitIsNotSilent(t *testing.T) {
	n := newNetwork(t, func(a, b *Config) {
		a.AckTimeout, a.RetryCount, b.RNRTimer = 10*time.Millisecond, 0, wire.RNRCode(30*time.Millisecond)
	})
	a := n.ends[0]
	mustPost(t, a.qp.PostMessage(1, nil))
	a.pump()
	for n.now < 500*time.Millisecond {
		n.step()
	}
	if a.qp.Status() != verbs.StatusSuccess {
		t.Error(a.qp.Status())
	}
}
