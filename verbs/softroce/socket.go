package softroce

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"iserblk/verbs"
)

// Port is the UDP port of RoCEv2 (IBTA annex A17.9.1).
const Port = 4791

// wantBuffer is the size of socket buffers in bytes: rxe may have 128 packets on their way, each of which the kernel
// charges with up to 9 KiB.
const wantBuffer = 4 << 20

// udpNoCheck6Rx lets IPv6 packets in that have no UDP checksum (linux/udp.h).
const udpNoCheck6Rx = 102

// socketAttr says what kind of socket is wanted.
type socketAttr struct {
	local  netip.AddrPort
	shared bool   // other sockets of this user may have the same address
	tos    uint8  // IP type of service or IPv6 traffic class
	device string // leave by this network device only; "" for any
}

// openSocket makes a non-blocking UDP socket that never fragments.
func openSocket(a socketAttr) (fd int, err error) {
	family := unix.AF_INET6
	if a.local.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err = setUp(fd, family, a); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func setUp(fd, family int, a socketAttr) error {
	for _, o := range options(family, a) {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return os.NewSyscallError("setsockopt", fmt.Errorf("%d,%d: %w", o.level, o.name, err))
		}
	}
	if a.device != "" {
		if err := unix.BindToDevice(fd, a.device); err != nil {
			return os.NewSyscallError("bind to "+a.device, err)
		}
	}
	setBuffers(fd)
	if err := unix.Bind(fd, sockaddr(a.local)); err != nil {
		return os.NewSyscallError("bind", err)
	}
	return nil
}

type option struct{ level, name, value int }

func options(family int, a socketAttr) []option {
	all := []option{
		{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO},
		{unix.IPPROTO_IP, unix.IP_TOS, int(a.tos)},
	}
	if family == unix.AF_INET6 {
		all = []option{
			{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1},
			{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO},
			{unix.IPPROTO_IPV6, unix.IPV6_TCLASS, int(a.tos)},
			{unix.IPPROTO_UDP, udpNoCheck6Rx, 1},
		}
	}
	if a.shared {
		all = append(all, option{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1})
	}
	return all
}

// setBuffers makes both buffers as large as they should be, or as may be.
func setBuffers(fd int) {
	for _, o := range [...][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[0], wantBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[1], wantBuffer) // capped by net.core.*mem_max
		}
	}
}

// receiveBuffer is how many bytes the kernel lets wait in a socket, its own bookkeeping included.
func receiveBuffer(fd int) int {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return 0
	}
	return n
}

// openSender makes a socket to send from. Its port is random and says nothing but which flow the packets belong to
// (annex A17.9.2: from 0xc000 up).
func openSender(a socketAttr) (fd int, port uint16, err error) {
	const first, count, tries = 0xc000, 0x4000, 64
	for range tries {
		port = first + uint16(rand.IntN(count))
		a.local = netip.AddrPortFrom(a.local.Addr(), port)
		fd, err = openSocket(a)
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	return fd, port, err
}

// openLobby binds the port that peers send to.
func openLobby(local netip.Addr) (int, error) {
	fd, err := openSocket(socketAttr{local: netip.AddrPortFrom(local, Port), shared: true})
	if err == nil {
		_ = wantErrors(fd, local) // without them attempts to connect time out
		return fd, nil
	}
	op := &verbs.OpError{Op: fmt.Sprintf("bind UDP port %d of", Port), Peer: local.String(), Err: err}
	if errors.Is(err, unix.EADDRINUSE) {
		op.Hint = "kernel Soft-RoCE (rdma link show) or another user's process has it: use --provider rdmacore, " +
			"or a network namespace without RDMA devices"
	}
	return -1, op
}

// openReceiver makes a socket on the same port that the kernel prefers for packets from one port of one host.
func openReceiver(local netip.Addr, from netip.AddrPort) (int, error) {
	fd, err := openSocket(socketAttr{local: netip.AddrPortFrom(local, Port), shared: true})
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, sockaddr(from)); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	countDrops(fd)
	return fd, nil
}
