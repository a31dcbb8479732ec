package softroce

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"iserblk/verbs"
)

// errNobody is how a request fails whose host says that it has nobody on the RoCE port. Anybody can forge such an ICMP
// message, so it ends an attempt to connect, as with TCP, and nothing that is established.
var errNobody = fmt.Errorf("%w: nothing takes RoCE packets there (%w)", verbs.ErrRejected, unix.ECONNREFUSED)

// wantErrors has the kernel keep what ICMP messages say about packets that were sent (ip(7), IP_RECVERR).
func wantErrors(fd int, local netip.Addr) error {
	if local.Is4() {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
}

// errorReader takes such messages off a socket.
type errorReader struct {
	name rawAddr
	oob  [256]byte
	hdr  unix.Msghdr
	iov  unix.Iovec
	data [1]byte
}

func newErrorReader() *errorReader {
	r := &errorReader{}
	r.iov.Base = &r.data[0]
	r.iov.SetLen(len(r.data))
	r.hdr.Iov = &r.iov
	r.hdr.SetIovlen(1)
	r.hdr.Name = (*byte)(unsafe.Pointer(&r.name))
	r.hdr.Control = &r.oob[0]
	return r
}

// next is the next host that refuses packets. Other errors are passed over; ok is false when there are no more.
func (r *errorReader) next(fd int) (refusing netip.Addr, ok bool) {
	for {
		r.hdr.Namelen = unix.SizeofSockaddrInet6
		r.hdr.SetControllen(len(r.oob))
		_, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.hdr)),
			unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if errno != 0 {
			return netip.Addr{}, false
		}
		if refusal(r.oob[:r.hdr.Controllen]) {
			return r.name.addrPort().Addr(), true
		}
	}
}

// refusal looks for a "port unreachable" of the other host (struct sock_extended_err in linux/errqueue.h).
func refusal(oob []byte) bool {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return false
	}
	for _, m := range msgs {
		v4 := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
		v6 := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if !v4 && !v6 || len(m.Data) < 8 {
			continue
		}
		origin := m.Data[4]
		icmp := origin == unix.SO_EE_ORIGIN_ICMP || origin == unix.SO_EE_ORIGIN_ICMP6
		return icmp && binary.NativeEndian.Uint32(m.Data) == uint32(unix.ECONNREFUSED)
	}
	return false
}

// refused ends the attempts to connect to a host that has nobody on the port.
func (e *endpoint) refused(by netip.Addr) {
	e.mu.Lock()
	e.manager.Refused(time.Now(), by)
	e.settle()
}
