package softroce

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawAddr is a struct sockaddr_in or sockaddr_in6 as the kernel reads and writes it.
type rawAddr struct {
	unix.RawSockaddrInet6
}

func makeRawAddr(a netip.AddrPort) (r rawAddr, length uint32) {
	port := (*[2]byte)(unsafe.Pointer(&r.Port))
	binary.BigEndian.PutUint16(port[:], a.Port())
	if a.Addr().Is4() {
		r.Family = unix.AF_INET
		(*unix.RawSockaddrInet4)(unsafe.Pointer(&r)).Addr = a.Addr().As4()
		return r, unix.SizeofSockaddrInet4
	}
	r.Family = unix.AF_INET6
	r.Addr = a.Addr().As16()
	r.Scope_id = scopeID(a.Addr().Zone())
	return r, unix.SizeofSockaddrInet6
}

// addrPort reads it, without the zone: the address is compared with GIDs, which have none.
func (r *rawAddr) addrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&r.Port))[:])
	if r.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(r)).Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(r.Addr), port)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: scopeID(a.Addr().Zone())}
}

// scopeID is the number of an interface given by name or number, 0 if there is none.
func scopeID(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	return 0
}
