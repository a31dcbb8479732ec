package cm_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"iserblk/verbs/softroce/cm"
)

// net is two Managers, a on here and b on there, and what is between them.
type net struct {
	now  time.Time
	a, b *cm.Manager
	rng  *rand.Rand
	// drop and dup are chances in percent.
	drop, dup int
	flying    []flight
	events    map[*cm.Manager][]cm.Event
	answer    bool // b accepts what it is asked
	qpn       uint32
}

// flight is a message on its way.
type flight struct {
	from netip.Addr
	to   *cm.Manager
	at   time.Time
	mad  cm.MAD
}

func newNet(seed uint64) *net {
	n := &net{
		now: time.Unix(1000, 0), rng: rand.New(rand.NewPCG(seed, 2)), events: map[*cm.Manager][]cm.Event{}, answer: true,
		qpn: 100,
	}
	next := uint64(0)
	ids := func() uint64 { next++; return next }
	n.a = cm.NewManager(cm.Config{Addr: here, GUID: 0xa, Rand: ids})
	n.b = cm.NewManager(cm.Config{Addr: there, GUID: 0xb, Rand: ids})
	n.b.Listen(3260)
	return n
}

func (n *net) chance(percent int) bool { return n.rng.IntN(100) < percent }

// collect takes what the Managers have to say.
func (n *net) collect() {
	for _, m := range []*cm.Manager{n.a, n.b} {
		to, from := n.b, here
		if m == n.b {
			to, from = n.a, there
		}
		for _, o := range m.Outgoing() {
			for copies := 1; copies > 0; copies-- {
				if n.chance(n.dup) {
					copies++
				}
				if !n.chance(n.drop) {
					late := time.Duration(n.rng.IntN(20)) * time.Millisecond
					n.flying = append(n.flying, flight{from, to, n.now.Add(late), o.MAD})
				}
			}
		}
		for _, e := range append([]cm.Event(nil), m.Events()...) {
			n.events[m] = append(n.events[m], e)
			n.react(m, e)
		}
	}
}

// react is what a driver does.
func (n *net) react(m *cm.Manager, e cm.Event) {
	switch {
	case e.Kind == cm.Requested && n.answer:
		n.qpn++
		m.Accept(n.now, e.ID, cm.Answer{QPN: n.qpn, RecvPSN: 7, Private: []byte("yes")})
	case e.Kind == cm.Replied:
		m.Confirm(e.ID)
	}
}

// run lets time pass until nothing moves any more, or for a while.
func (n *net) run(limit time.Duration) {
	for end := n.now.Add(limit); n.now.Before(end); n.now = n.now.Add(5 * time.Millisecond) {
		n.collect()
		n.deliver()
		for _, m := range []*cm.Manager{n.a, n.b} {
			if at, ok := m.Deadline(); ok && !n.now.Before(at) {
				m.Tick(n.now)
			}
		}
	}
	n.collect()
}

func (n *net) deliver() {
	var rest []flight
	for _, f := range n.flying {
		if n.now.Before(f.at) {
			rest = append(rest, f)
			continue
		}
		f.to.Handle(n.now, f.from, f.mad[:])
	}
	n.flying = rest
}

type fataler interface {
	Helper()
	Fatal(...any)
}

func (n *net) request() cm.Request {
	n.qpn++
	return cm.Request{Dst: netip.AddrPortFrom(there, 3260), SrcPort: 50000, QPN: n.qpn, RecvPSN: 5, MTU: 5, Private: []byte("hello")}
}

func (n *net) connect(t fataler) cm.ID {
	t.Helper()
	id, err := n.a.Connect(n.now, n.request())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// last is the last event of a Manager, the zero one if there is none.
func (n *net) last(m *cm.Manager) cm.Event {
	all := n.events[m]
	if len(all) == 0 {
		return cm.Event{}
	}
	return all[len(all)-1]
}

func (n *net) count(m *cm.Manager, kind cm.EventKind) (c int) {
	for _, e := range n.events[m] {
		if e.Kind == kind {
			c++
		}
	}
	return c
}

func (n *net) established(t *testing.T) (a, b cm.ID) {
	t.Helper()
	a = n.connect(t)
	n.run(100 * time.Millisecond)
	if n.last(n.b).Kind != cm.Established || n.last(n.a).Kind != cm.Replied {
		t.Fatalf("%+v; %+v", n.events[n.a], n.events[n.b])
	}
	return a, n.last(n.b).ID
}

func TestAConnectionIsMadeAndEnded(t *testing.T) {
	n := newNet(1)
	a, b := n.established(t)
	req, rep := n.events[n.b][0], n.events[n.a][0]
	if req.REQ.RecvPSN != 5 || string(req.IP.User[:5]) != "hello" || req.IP.Src != netip.AddrPortFrom(here, 50000) {
		t.Errorf("%+v", req)
	}
	if rep.REP.RecvPSN != 7 || string(rep.REP.Private[:3]) != "yes" || rep.ID != a {
		t.Errorf("%+v", rep)
	}
	n.a.Disconnect(n.now, a)
	n.run(100 * time.Millisecond)
	if e := n.last(n.b); n.last(n.a).Kind != cm.Closed || e.Kind != cm.Disconnected || e.ID != b {
		t.Errorf("%+v; %+v", n.last(n.a), n.last(n.b))
	}
	if n.a.Len()+n.b.Len() != 0 {
		t.Error("something is left")
	}
}

func TestBothEndsMayEndAConnectionAtOnce(t *testing.T) {
	n := newNet(1)
	a, b := n.established(t)
	n.a.Disconnect(n.now, a)
	n.b.Disconnect(n.now, b)
	n.run(2 * time.Second)
	if n.last(n.a).Kind != cm.Closed || n.last(n.b).Kind != cm.Closed || n.a.Len()+n.b.Len() != 0 {
		t.Errorf("%+v; %+v", n.last(n.a), n.last(n.b))
	}
}

func TestALostConfirmationIsSentAgain(t *testing.T) {
	n := newNet(1)
	n.connect(t)
	for n.count(n.a, cm.Replied) == 0 {
		n.collect()
		n.deliver()
		n.now = n.now.Add(time.Millisecond)
	}
	n.flying = nil // the RTU
	n.a.Outgoing()
	n.run(time.Second)
	if n.last(n.b).Kind != cm.Established || n.count(n.a, cm.Replied) != 1 {
		t.Errorf("%+v; %+v", n.events[n.a], n.events[n.b])
	}
}

func TestAPacketOfThePeerConfirmsAsWell(t *testing.T) {
	n := newNet(1)
	n.connect(t)
	for n.count(n.b, cm.Requested) == 0 {
		n.collect()
		n.deliver()
		n.now = n.now.Add(time.Millisecond)
	}
	n.b.Heard(n.last(n.b).ID)
	if e := n.b.Events(); len(e) != 1 || e[0].Kind != cm.Established {
		t.Errorf("%+v", e)
	}
}

func TestNobodyListensIsToldByReason8(t *testing.T) {
	n := newNet(1)
	n.b.Unlisten(3260)
	n.connect(t)
	n.run(100 * time.Millisecond)
	if e := n.last(n.a); e.Kind != cm.Rejected || e.Reason != cm.ReasonInvalidService || n.a.Len() != 0 {
		t.Errorf("%+v", e)
	}
}

func TestAForgottenConnectionIsStale(t *testing.T) {
	n := newNet(1)
	r := n.request()
	if _, err := n.a.Connect(n.now, r); err != nil {
		t.Fatal(err)
	}
	n.run(100 * time.Millisecond)
	// The process of a dies and comes back with the same adapter and queue pair.
	next := uint64(1 << 20)
	n.a = cm.NewManager(cm.Config{Addr: here, GUID: 0xa, Rand: func() uint64 { next++; return next }})
	if _, err := n.a.Connect(n.now, r); err != nil {
		t.Fatal(err)
	}
	n.run(100 * time.Millisecond)
	if e := n.last(n.a); e.Kind != cm.Rejected || e.Reason != cm.ReasonStale {
		t.Errorf("%+v", e)
	}
	if n.last(n.b).Kind != cm.Disconnected || n.b.Len() != 0 {
		t.Errorf("%+v", n.last(n.b))
	}
	n.established(t)
}

func TestASilentPeerTimesOutAndASlowOneDoesNot(t *testing.T) {
	n := newNet(1)
	n.drop = 100
	n.connect(t)
	n.run(10 * time.Second)
	if n.last(n.a).Kind != cm.TimedOut || n.a.Len() != 0 {
		t.Errorf("%+v", n.last(n.a))
	}
	n = newNet(1)
	n.answer = false
	n.connect(t)
	n.run(5 * time.Second) // requests that come again are answered by MRA
	if n.last(n.a).Kind == cm.TimedOut || n.count(n.b, cm.Requested) != 1 {
		t.Errorf("%+v; %+v", n.events[n.a], n.events[n.b])
	}
	n.b.Accept(n.now, n.last(n.b).ID, cm.Answer{QPN: 9, RecvPSN: 9})
	n.run(2 * time.Second)
	if n.last(n.b).Kind != cm.Established {
		t.Errorf("%+v", n.last(n.b))
	}
}

func TestAnAbandonedRequestIsForgottenByThePeer(t *testing.T) {
	n := newNet(1)
	n.answer = false
	id := n.connect(t)
	n.run(100 * time.Millisecond)
	n.a.Abandon(id)
	n.run(100 * time.Millisecond)
	if n.a.Len()+n.b.Len() != 0 || n.last(n.b).Kind != cm.Rejected {
		t.Errorf("%d, %d, %+v", n.a.Len(), n.b.Len(), n.last(n.b))
	}
}

func TestARefusalReachesThePeer(t *testing.T) {
	n := newNet(1)
	n.answer = false
	n.connect(t)
	n.run(50 * time.Millisecond)
	n.b.Reject(n.last(n.b).ID, cm.ReasonConsumer)
	n.run(50 * time.Millisecond)
	if e := n.last(n.a); e.Kind != cm.Rejected || e.Reason != cm.ReasonConsumer || n.b.Len() != 0 {
		t.Errorf("%+v", e)
	}
}

// TestALossyNetworkChangesNothing: whatever is lost, doubled and overtaken, connections come up once at both ends with
// the same parameters, and go away at both ends without a trace.
func TestALossyNetworkChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := newNet(rapid.Uint64().Draw(t, "seed"))
		n.drop, n.dup = rapid.IntRange(0, 35).Draw(t, "drop"), rapid.IntRange(0, 40).Draw(t, "dup")
		var ids []cm.ID
		for range rapid.IntRange(1, 5).Draw(t, "connections") {
			ids = append(ids, n.connect(t))
		}
		n.run(8 * time.Second)
		if got := n.count(n.a, cm.Replied); got+n.count(n.a, cm.TimedOut) != len(ids) {
			t.Fatalf("%d of %d answered", got, len(ids))
		}
		if n.count(n.b, cm.Established) > n.count(n.b, cm.Requested) {
			t.Fatal("confirmed more often than asked")
		}
		for _, id := range ids {
			n.a.Disconnect(n.now, id)
		}
		n.run(10 * time.Second)
		if n.a.Len() != 0 {
			t.Fatalf("%d left", n.a.Len())
		}
		// A DREQ that never got through leaves the peer with a connection: nothing else may.
		if left := n.b.Len(); left > n.count(n.b, cm.Established) {
			t.Fatalf("%d left at the peer", left)
		}
	})
}
