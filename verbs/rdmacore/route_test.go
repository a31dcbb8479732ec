package rdmacore

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"iserblk/verbs"
)

func TestTheWayToThisHostIsItsLoopback(t *testing.T) {
	r, err := RouteTo(netip.Addr{}, netip.MustParseAddr("127.0.0.1"))
	if err != nil || !r.Loopback || r.Src.String() != "127.0.0.1" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestASourceThatIsNotOursHasNoRoute(t *testing.T) {
	_, err := RouteTo(netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("127.0.0.1"))
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Error(err)
	}
}

func TestTheAckTimeoutIsRoundedUp(t *testing.T) {
	for d, want := range map[time.Duration]uint8{
		1: 0, 4096: 0, 4097: 1, 8192: 1, 67 * time.Millisecond: 14, 68 * time.Millisecond: 15, time.Hour * 24: 31,
	} {
		if got := ackTimeoutCode(d); got != want {
			t.Errorf("%v gives %d, want %d", d, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(1, int64(4096<<31)).Draw(t, "d"))
		n := ackTimeoutCode(d)
		if time.Duration(4096)<<n < d || n > 0 && time.Duration(4096)<<(n-1) >= d {
			t.Fatalf("%v gives %d", d, n)
		}
	})
}

func TestAFindingSaysWhatToDo(t *testing.T) {
	bad := Finding{Check: "x"}.verdict(&verbs.OpError{Op: "open y", Hint: "do z", Err: os.ErrNotExist})
	if bad.OK || bad.Fix != "do z" || strings.Contains(bad.Detail, "do z") {
		t.Errorf("%+v", bad)
	}
	low := probeMemlock(Memlock{Soft: 8 << 20, Hard: 8 << 20})
	if low.OK || low.Fix == "" {
		t.Errorf("%+v", low)
	}
	none := probeRoute(netip.MustParseAddr("10.0.0.1"), Route{NetDev: "eth0", FreeName: "rxe0"}, nil)
	if none.OK || !strings.Contains(none.Fix, "netdev eth0") {
		t.Errorf("%+v", none)
	}
}

func TestAProbeLooksAtEverything(t *testing.T) {
	found := Probe(context.Background(), netip.Addr{}, netip.MustParseAddr("127.0.0.1"))
	if len(found) != 5 {
		t.Fatalf("%d findings", len(found))
	}
	for _, f := range found {
		if f.Check == "" || f.Detail == "" || !f.OK && f.Fix == "" {
			t.Errorf("%+v", f)
		}
	}
}
