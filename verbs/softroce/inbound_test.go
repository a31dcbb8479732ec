package softroce

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"iserblk/verbs"
)

// drops is how many packets the kernel had no room for in the victim's socket (SK_MEMINFO_DROPS of linux/sock_diag.h).
func (v *victim) drops(t *testing.T) uint32 {
	t.Helper()
	var info [9]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(v.receiver), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	return info[8]
}

// settled is a victim that receives by a socket of its own, with room for about n bytes.
func settled(t *testing.T, at netip.Addr, n int) *victim {
	t.Helper()
	v := newVictim(t, at)
	v.write(t, make([]byte, 64))
	if v.receiver < 0 {
		t.Fatal("it receives from the lobby")
	}
	if err := unix.SetsockoptInt(v.receiver, unix.SOL_SOCKET, unix.SO_RCVBUF, n/2); err != nil { // which the kernel doubles
		t.Fatal(err)
	}
	return v
}

// disturbed has the peer write n bytes, and lets disturb do its work before the driver polls.
func (v *victim) disturbed(t *testing.T, n int, disturb func()) {
	t.Helper()
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	done := make(chan error, 1)
	go func() { done <- v.peer.RDMAWrite(v.Keys(v.region).WriteKey, verbs.Addr(v.mem), data) }()
	disturb()
	v.await(t, done)
	if !bytes.Equal(v.mem[:n], data) {
		t.Error("other bytes have arrived")
	}
}

// await polls until the peer's operation is done.
func (v *victim) await(t *testing.T, done chan error) {
	t.Helper()
	for late := time.After(5 * time.Second); ; time.Sleep(50 * time.Microsecond) {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		case <-late:
			t.Fatal("the peer's operation does not end")
		default:
			v.poll(t)
		}
	}
}

// overflow waits until the kernel has had to drop a packet.
func (v *victim) overflow(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); v.drops(t) == 0; time.Sleep(50 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatal("everything fits")
		}
	}
}

func TestAReceiveBufferThatHasOverflowedLimitsWhatThePeerMayBeAskedToWrite(t *testing.T) {
	for name, c := range map[string]struct {
		at string
		n  int
	}{
		"more follows what was dropped": {"127.0.0.40", 64 << 10}, "nothing does, so no gap is seen": {"127.0.0.40", 32 << 10},
		"IPv6": {"::1", 64 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			v := settled(t, netip.MustParseAddr(c.at), 40<<10)
			if n := v.InboundLimit(); n != 0 {
				t.Errorf("%d bytes before anything was lost", n)
			}
			v.disturbed(t, c.n, func() { v.overflow(t) })
			n, mtu := v.InboundLimit(), v.cfg.MTU
			if n < mtu || n/mtu*charge(mtu) > receiveBuffer(v.receiver) {
				t.Errorf("%d bytes in packets of %d, into a buffer of %d", n, mtu, receiveBuffer(v.receiver))
			}
		})
	}
}

func TestABufferThatHoldsNoPacketLetsThePeerBeAskedForOne(t *testing.T) {
	v := settled(t, netip.MustParseAddr("127.0.0.42"), 1)
	v.limitInbound()
	if n := v.InboundLimit(); n != v.cfg.MTU {
		t.Errorf("%d bytes in packets of %d", n, v.cfg.MTU)
	}
}

func TestAPacketThatTheNetworkLosesLimitsNothing(t *testing.T) {
	v := settled(t, netip.MustParseAddr("127.0.0.43"), wantBuffer)
	v.disturbed(t, len(v.mem), func() {
		fds := []unix.PollFd{{Fd: int32(v.receiver), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 5000); n != 1 {
			t.Fatal(err)
		}
		if _, _, err := unix.Recvfrom(v.receiver, make([]byte, maxPacket), 0); err != nil {
			t.Fatal(err)
		}
	})
	if v.qp.Stats().SequenceNaksSent == 0 || v.drops(t) != 0 {
		t.Fatalf("%+v, %d packets dropped", v.qp.Stats(), v.drops(t))
	}
	if n := v.InboundLimit(); n != 0 {
		t.Errorf("%d bytes", n)
	}
}
