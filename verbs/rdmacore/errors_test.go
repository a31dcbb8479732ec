package rdmacore

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"iserblk/verbs"
)

var toPeer = verbs.DialAttr{Src: netip.MustParseAddr("10.0.0.9"), Dst: netip.MustParseAddrPort("10.0.0.1:3260")}

// says checks that an error matches a sentinel and contains all the words.
func says(t *testing.T, err, sentinel error, words ...string) {
	t.Helper()
	if sentinel != nil && !errors.Is(err, sentinel) {
		t.Errorf("%v does not match %v", err, sentinel)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

func TestAMissingConnectionManagerIsExplained(t *testing.T) {
	says(t, openError(syscall.ENOENT, false, false), verbs.ErrNoProvider, "modprobe rdma_ucm")
	says(t, openError(syscall.ENODEV, true, true), verbs.ErrNoProvider, "modprobe rdma_ucm")
	says(t, openError(syscall.ENOENT, false, true), verbs.ErrNoProvider, "container")
	err := openError(syscall.EACCES, true, true)
	says(t, err, syscall.EACCES, "root", "/dev/infiniband")
	if errors.Is(err, verbs.ErrNoProvider) {
		t.Errorf("%v: the provider is there", err)
	}
}

func TestAMissingDeviceIsExplainedByTheNetworkDevice(t *testing.T) {
	r := Route{NetDev: "eth7", FreeName: "rxe3"}
	says(t, addrError(toPeer, syscall.ENODEV, r, nil), verbs.ErrNoDevice,
		"10.0.0.1:3260", "rdma link add rxe3 type rxe netdev eth7")
	r.Device.Name = "mlx5_0"
	says(t, addrError(toPeer, syscall.ENODEV, r, nil), verbs.ErrNoDevice, "mlx5_0 is on eth7", "modprobe ib_uverbs")
	says(t, addrError(toPeer, syscall.ENODEV, Route{NetDev: "lo", Loopback: true}, nil), verbs.ErrNoDevice, "loopback")
	says(t, addrError(toPeer, syscall.ENODEV, Route{}, syscall.ENETUNREACH), verbs.ErrNoDevice, "rdma link show")
}

func TestAnAddressThatDoesNotResolveIsExplained(t *testing.T) {
	says(t, addrError(toPeer, syscall.EADDRNOTAVAIL, Route{}, nil), syscall.EADDRNOTAVAIL, "10.0.0.9 is not an address")
	says(t, addrError(toPeer, syscall.ENETUNREACH, Route{}, nil), syscall.ENETUNREACH, "ip route get 10.0.0.1")
	says(t, addrError(toPeer, verbs.ErrTimeout, Route{}, nil), verbs.ErrTimeout, "ip neighbour show 10.0.0.1")
	says(t, addrError(toPeer, verbs.ErrTimeout, Route{NetDev: "eth7", FreeName: "rxe0"}, nil), verbs.ErrTimeout,
		"ip neighbour show 10.0.0.1", "netdev eth7")
}

func TestAPortThatIsDownIsNamedWithItsNetworkDevice(t *testing.T) {
	d := verbs.DeviceInfo{Name: "rxe0", Port: 1, NetDev: "eth7"}
	says(t, portDown(toPeer.Dst, d), verbs.ErrPortDown, "connect to 10.0.0.1:3260", "rxe0 port 1 on eth7", "ip link set eth7 up")
	d.NetDev = ""
	says(t, portDown(toPeer.Dst, d), verbs.ErrPortDown, "rxe0 port 1: ", "cable")
}

func TestANetworkThatWentAwayWithItsPortIsExplained(t *testing.T) {
	up, down := verbs.DeviceInfo{Name: "rxe1", Port: 1, NetDev: "eth8", Active: true}, verbs.DeviceInfo{Name: "rxe0", Port: 1, NetDev: "eth7"}
	e := addrError(toPeer, syscall.ENETUNREACH, Route{}, nil)
	says(t, besides(e, Route{}, []verbs.DeviceInfo{up, down}), syscall.ENETUNREACH, "; besides, rxe0 port 1 on eth7 is down")
	e = addrError(toPeer, syscall.ENETUNREACH, Route{}, nil)
	if err := besides(e, Route{Device: up}, []verbs.DeviceInfo{up, down}); strings.Contains(err.Error(), "besides") {
		t.Errorf("%v: the route leads elsewhere", err)
	}
}

func TestASilentPeerIsATimeoutWithAHint(t *testing.T) {
	err := explainConnect(&verbs.OpError{Op: "connect to", Peer: "10.0.0.1:3260", Err: asTimeout(os.ErrDeadlineExceeded)})
	says(t, err, verbs.ErrTimeout, "UDP port 4791")
}

func TestEveryWayOfNotAnsweringIsATimeout(t *testing.T) {
	for _, err := range []error{os.ErrDeadlineExceeded, syscall.ETIMEDOUT} {
		says(t, asTimeout(err), verbs.ErrTimeout)
	}
	if err := asTimeout(syscall.EIO); errors.Is(err, verbs.ErrTimeout) {
		t.Error(err)
	}
}

func TestAnEndedContextShowsThrough(t *testing.T) {
	says(t, ended("connect to", toPeer.Dst, context.DeadlineExceeded), verbs.ErrTimeout, "10.0.0.1:3260")
	says(t, ended("connect to", toPeer.Dst, context.DeadlineExceeded), context.DeadlineExceeded)
	err := ended("connect to", toPeer.Dst, context.Canceled)
	says(t, err, context.Canceled)
	if errors.Is(err, verbs.ErrTimeout) {
		t.Errorf("%v is no timeout", err)
	}
	if explainAddr(toPeer, err) != err || explainConnect(err) != err {
		t.Error("an ended context was explained away")
	}
}

func TestAMemlockErrorNamesTheLimitAndTheNeed(t *testing.T) {
	limited := Memlock{Soft: 64 << 10, Hard: 64 << 10, Pinned: 32 << 10}
	says(t, memoryError("register memory", syscall.ENOMEM, 3<<20, limited), verbs.ErrMemlock,
		"64 KiB", "3072 KiB", "ulimit -l")
	says(t, memoryError("create queue pair", syscall.ENOMEM, 0, limited), verbs.ErrMemlock, "64 KiB")
}

func TestOnlyTheLimitIsBlamedOnTheLimit(t *testing.T) {
	limited := Memlock{Soft: 64 << 10, Hard: 64 << 10}
	exempt := limited
	exempt.Exempt = true
	for name, err := range map[string]error{
		"another error":      memoryError("register memory", syscall.EINVAL, 3<<20, limited),
		"enough was allowed": memoryError("register memory", syscall.ENOMEM, 4096, limited),
		"exempt":             memoryError("register memory", syscall.ENOMEM, 3<<20, exempt),
		"unlimited":          memoryError("register memory", syscall.ENOMEM, 3<<20, Memlock{Soft: Unlimited}),
	} {
		if errors.Is(err, verbs.ErrMemlock) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheLimitOfThisProcessCanBeRead(t *testing.T) {
	m := ReadMemlock()
	if m.Soft > m.Hard || m.Soft == 0 {
		t.Errorf("%+v", m)
	}
}
