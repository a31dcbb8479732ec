package cm_test

import (
	"net/netip"
	"testing"
	"time"

	"iserblk/verbs/softroce/cm"
)

// TestForgedMessagesChangeNothing changes one thing in a message that a stranger cannot know.
func TestForgedMessagesChangeNothing(t *testing.T) {
	n := newNet(1)
	a, _ := n.established(t)
	n.a.Disconnect(n.now, a)
	dreq := n.a.Outgoing()[0].MAD
	other := netip.MustParseAddr("10.0.0.66")
	for name, forge := range map[string]func(m *cm.MAD) netip.Addr{
		"address":       func(*cm.MAD) netip.Addr { return other },
		"own id":        func(m *cm.MAD) netip.Addr { m[27]++; return here },
		"other id":      func(m *cm.MAD) netip.Addr { m[31] += 77; return here },
		"queue pair":    func(m *cm.MAD) netip.Addr { m[34]++; return here },
		"class":         func(m *cm.MAD) netip.Addr { m[1]++; return here },
		"a late REP":    func(m *cm.MAD) netip.Addr { m[17] = byte(cm.AttrREP); return here },
		"a late MRA":    func(m *cm.MAD) netip.Addr { m[17] = byte(cm.AttrMRA); return here },
		"an early DREP": func(m *cm.MAD) netip.Addr { m[17] = byte(cm.AttrDREP); return here },
		"a REJ":         func(m *cm.MAD) netip.Addr { m[17] = byte(cm.AttrREJ); return here },
	} {
		m := dreq
		from := forge(&m)
		n.b.Handle(n.now, from, m[:])
		if e := n.b.Events(); len(e) != 0 || n.b.Len() != 1 {
			t.Errorf("%s: %+v", name, e)
		}
	}
	n.b.Handle(n.now, here, dreq[:])
	if e := n.b.Events(); len(e) != 1 || e[0].Kind != cm.Disconnected {
		t.Errorf("the real one: %+v", e)
	}
}

func TestAFloodOfRequestsIsForgottenAndHardlyAnswered(t *testing.T) {
	n := newNet(1)
	n.answer = false
	answers := 0
	for i := range 20000 {
		src := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		r := cm.REQ{
			TID: uint64(i), LocalID: uint32(i), ServiceID: cm.ServiceID(3260), GUID: uint64(i), QPN: 2 + uint32(i),
			MTU: 5, Src: src, Dst: there,
		}
		cm.IPHeader{Src: netip.AddrPortFrom(src, 1), Dst: there}.Put(&r.Private)
		m := r.Encode()
		n.b.Handle(n.now, src, m[:])
		answers += len(n.b.Outgoing())
		n.b.Events()
		n.now = n.now.Add(50 * time.Microsecond)
	}
	if n.b.Len() > 64 || answers > 200 {
		t.Errorf("%d connections, %d answers", n.b.Len(), answers)
	}
	n.now = n.now.Add(time.Minute)
	n.b.Tick(n.now)
	n.b.Outgoing()
	n.b.Events()
	n.answer = true
	n.established(t)
}

func TestOneAddressCannotTakeAllPlaces(t *testing.T) {
	n := newNet(1)
	n.answer = false
	for range 40 {
		n.connect(t)
	}
	n.run(50 * time.Millisecond)
	if n.b.Len() > 16 || n.count(n.a, cm.Rejected) < 20 {
		t.Errorf("%d connections, %d rejected", n.b.Len(), n.count(n.a, cm.Rejected))
	}
}

func TestUnknownConnectionsAreAnsweredToEndThem(t *testing.T) {
	n := newNet(1)
	dreq := cm.DREQ{IDs: cm.IDs{TID: 9, LocalID: 8, RemoteID: 7}, QPN: 6}
	m := dreq.Encode()
	answers := 0
	for range 1000 {
		n.b.Handle(n.now, here, m[:])
		for _, o := range n.b.Outgoing() {
			answers++
			if o.MAD.Attr() != cm.AttrDREP || o.MAD.TID() != 9 || o.MAD.RemoteID() != 8 || o.MAD.LocalID() != 7 {
				t.Fatalf("%v % x", o.MAD.Attr(), o.MAD[:40])
			}
		}
	}
	if answers == 0 || answers > 60 {
		t.Errorf("%d answers to 1000", answers)
	}
}

func TestOnlyRequestsEndWhenAHostRefuses(t *testing.T) {
	n := newNet(1)
	n.established(t)
	n.answer = false
	n.connect(t)
	n.a.Refused(n.now, here) // another host
	if e := n.a.Events(); len(e) != 0 {
		t.Errorf("%+v", e)
	}
	n.a.Refused(n.now, there)
	if e := n.a.Events(); len(e) != 1 || e[0].Kind != cm.Unreachable || n.a.Len() != 1 {
		t.Errorf("%+v, %d connections left", e, n.a.Len())
	}
}
