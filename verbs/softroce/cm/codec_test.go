package cm_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"iserblk/verbs/softroce/cm"
)

var (
	here   = netip.MustParseAddr("10.0.0.2")
	there  = netip.MustParseAddr("10.0.0.1")
	addrEq = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
)

func drawAddr(t *rapid.T, label string) netip.Addr {
	b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, label)
	return netip.AddrFrom16([16]byte(b)).Unmap()
}

func drawREQ(t *rapid.T) cm.REQ {
	bits := func(n int, label string) uint8 { return rapid.Uint8Max(1<<n-1).Draw(t, label) }
	r := cm.REQ{
		TID: rapid.Uint64().Draw(t, "tid"), LocalID: rapid.Uint32().Draw(t, "id"),
		ServiceID: rapid.Uint64().Draw(t, "service"), GUID: rapid.Uint64().Draw(t, "guid"),
		QPN: rapid.Uint32Range(2, 1<<24-1).Draw(t, "qpn"), RecvPSN: rapid.Uint32Max(1<<24-1).Draw(t, "psn"),
		ResponderResources: bits(8, "resources"), InitiatorDepth: bits(8, "depth"),
		ResponseTimeout: bits(5, "response"), LocalTimeout: bits(5, "local"), RetryCount: bits(3, "retry"),
		RNRRetry: bits(3, "rnr"), MaxCMRetries: bits(4, "cm retries"), MTU: rapid.Uint8Range(1, 5).Draw(t, "mtu"),
		AckTimeout: bits(5, "ack"), TransportType: bits(2, "transport"), PKey: 0xffff,
		FlowLabel: rapid.Uint32Max(1<<20-1).Draw(t, "label"), Src: drawAddr(t, "src"), Dst: drawAddr(t, "dst"), TrafficClass: bits(8, "class"), HopLimit: bits(8, "hops"),
	}
	copy(r.Private[:], rapid.SliceOfN(rapid.Byte(), 0, len(r.Private)).Draw(t, "private"))
	return r
}

func TestMessagesComeBackAsTheyWereEncoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		req := drawREQ(t)
		m := req.Encode()
		got, err := cm.ParseREQ(&m)
		if err != nil || m.Attr() != cm.AttrREQ || m.Check() != nil {
			t.Fatal(err, m.Attr(), m.Check())
		}
		if d := cmp.Diff(req, got, addrEq); d != "" {
			t.Fatal(d)
		}
		ids := cm.IDs{TID: req.TID, LocalID: req.LocalID, RemoteID: rapid.Uint32().Draw(t, "remote")}
		checkSmall(t, ids, req)
	})
}

func checkSmall(t *rapid.T, ids cm.IDs, req cm.REQ) {
	rep := cm.REP{
		IDs: ids, QPN: req.QPN, RecvPSN: req.RecvPSN, ResponderResources: req.ResponderResources,
		InitiatorDepth: req.InitiatorDepth, AckDelay: req.AckTimeout, RNRRetry: req.RNRRetry, GUID: req.GUID,
	}
	copy(rep.Private[:], req.Private[:])
	m := rep.Encode()
	if got, err := cm.ParseREP(&m); err != nil || got != rep {
		t.Fatal(err, cmp.Diff(rep, got))
	}
	rej := cm.REJ{IDs: ids, Rejected: 1, Reason: uint16(req.GUID), Info: req.Private[:rapid.IntRange(0, 72).Draw(t, "info")]}
	m = rej.Encode()
	if got, err := cm.ParseREJ(&m); err != nil || cmp.Diff(rej, got) != "" {
		t.Fatal(err, cmp.Diff(rej, got))
	}
	mra := cm.MRA{IDs: ids, Received: 1, Timeout: req.AckTimeout}
	if m = mra.Encode(); cm.ParseMRA(&m) != mra {
		t.Fatal(cm.ParseMRA(&m))
	}
	dreq := cm.DREQ{IDs: ids, QPN: req.QPN}
	if m = dreq.Encode(); cm.ParseDREQ(&m) != dreq {
		t.Fatal(cm.ParseDREQ(&m))
	}
}

// TestARequestLooksAsLinuxWantsIt pins the places that were found by watching rxe.
func TestARequestLooksAsLinuxWantsIt(t *testing.T) {
	r := cm.REQ{
		TID: 0x0102030405060708, LocalID: 0xa1a2a3a4, ServiceID: cm.ServiceID(3260), GUID: 0x1112131415161718,
		QPN: 0x212223, RecvPSN: 0x313233, ResponderResources: 16, InitiatorDepth: 1, ResponseTimeout: 20,
		LocalTimeout: 19, RetryCount: 6, RNRRetry: 7, MaxCMRetries: 15, MTU: cm.MTUCode(4096), AckTimeout: 17,
		PKey: 0xffff, Src: here, Dst: there, HopLimit: 64,
	}
	cm.IPHeader{Src: netip.AddrPortFrom(here, 0x4142), Dst: there, User: []byte{0xc0}}.Put(&r.Private)
	m := r.Encode()
	for _, want := range []struct {
		off  int
		data []byte
	}{
		{0, []byte{1, 7, 2, 3}},
		{8, []byte{1, 2, 3, 4, 5, 6, 7, 8}},
		{16, []byte{0, 0x10}},
		{24, []byte{0xa1, 0xa2, 0xa3, 0xa4, 0, 0, 0, 0, 0, 0, 0, 0, 1, 6, 3260 >> 8, 3260 & 0xff}},
		{24 + 32, []byte{0x21, 0x22, 0x23, 16}},
		{24 + 39, []byte{1}},
		{24 + 43, []byte{20 << 3, 0x31, 0x32, 0x33, 19<<3 | 6, 0xff, 0xff, 5<<4 | 7, 15 << 4, 0xff, 0xff, 0xff, 0xff}},
		{24 + 56, []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2}},
		{24 + 72, []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1}},
		{24 + 93, []byte{64, 0, 17 << 3}},
		{24 + 140, []byte{0, 0x40, 0x41, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2}},
		{24 + 140 + 20, []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1, 0xc0}},
	} {
		if got := m[want.off : want.off+len(want.data)]; !bytes.Equal(got, want.data) {
			t.Errorf("at %d: % x, not % x", want.off, got, want.data)
		}
	}
}

func TestIPHeadersComeBackForBothFamilies(t *testing.T) {
	for _, h := range []cm.IPHeader{
		{Src: netip.MustParseAddrPort("10.1.2.3:49152"), Dst: there},
		{Src: netip.MustParseAddrPort("[fd00::2]:49152"), Dst: netip.MustParseAddr("fd00::1")},
	} {
		var b [cm.REQPrivateLen]byte
		h.User = bytes.Repeat([]byte{7}, cm.UserPrivateLen)
		h.Put(&b)
		got, err := cm.ParseIPHeader(&b)
		if err != nil || got.Src != h.Src || got.Dst != h.Dst || !bytes.Equal(got.User, h.User) {
			t.Errorf("%+v became %+v: %v", h, got, err)
		}
	}
}

func TestTimeoutsAndMTUsAreRoundedToTheirCodes(t *testing.T) {
	for code := range uint8(32) {
		if d := cm.Timeout(code); cm.TimeoutCode(d) != code || code < 31 && cm.TimeoutCode(d+1) != code+1 {
			t.Errorf("code %d is %v, which is code %d", code, d, cm.TimeoutCode(d))
		}
	}
	if cm.TimeoutCode(0) != 0 || cm.TimeoutCode(24*time.Hour) != 31 {
		t.Error("the ends")
	}
	for mtu, want := range map[int]int{0: 256, 255: 256, 256: 256, 511: 256, 512: 512, 1023: 512, 1024: 1024, 4095: 2048, 4096: 4096, 65536: 4096} {
		if got := cm.MTU(cm.MTUCode(mtu)); got != want {
			t.Errorf("%d became %d, not %d", mtu, got, want)
		}
	}
	if cm.MTU(0) != 0 || cm.MTU(6) != 0 {
		t.Error("codes that mean none")
	}
}

func FuzzMessage(f *testing.F) {
	req := cm.REQ{TID: 1, LocalID: 2, QPN: 3, MTU: 5, Src: here, Dst: there}
	m := req.Encode()
	f.Add(m[:])
	rep := cm.REP{IDs: cm.IDs{TID: 1, LocalID: 2, RemoteID: 3}, QPN: 4}
	m = rep.Encode()
	f.Add(m[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := cm.ParseMAD(b)
		if err != nil {
			if !errors.Is(err, cm.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if req, err := cm.ParseREQ(&m); err == nil {
			again := req.Encode()
			if second, err := cm.ParseREQ(&again); err != nil || second != req {
				t.Fatalf("%+v became %+v: %v", req, second, err)
			}
			if ip, err := cm.ParseIPHeader(&req.Private); err == nil {
				var b [cm.REQPrivateLen]byte
				ip.Put(&b)
			}
		}
		_, _ = cm.ParseREP(&m)
		if rej, err := cm.ParseREJ(&m); err == nil && len(rej.Info) > 72 {
			t.Fatal(len(rej.Info))
		}
		_, _ = cm.ParseMRA(&m), cm.ParseDREQ(&m)
	})
}

// FuzzManager has a Manager with a connection in each state take any datagram: it may ignore it or not, it may not fall.
func FuzzManager(f *testing.F) {
	f.Add(make([]byte, cm.MADLen), uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, local uint8) {
		n := newNet(1)
		n.a.Listen(1)
		for range 3 {
			n.connect(t)
		}
		if len(b) == cm.MADLen && local > 0 { // aim at a connection that there is
			b[0], b[1], b[2], b[3] = 1, 7, 2, 3
			copy(b[28:32], []byte{0, 0, 0, local})
		}
		n.a.Handle(n.now, there, b)
		n.a.Handle(n.now, there, b)
		if len(n.a.Outgoing()) > 4 {
			t.Fatal("one datagram has many answers")
		}
	})
}
