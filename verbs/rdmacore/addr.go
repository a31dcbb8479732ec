//go:build cgo && linux

package rdmacore

// #include "shim.h"
import "C"

import (
	"net"
	"net/netip"
	"strconv"
	"unsafe"
)

// cAddr turns an address for C; the zero Addr becomes no address.
func cAddr(a netip.AddrPort) (out C.struct_blk_addr) {
	ip := a.Addr().Unmap()
	out.port = C.uint16_t(a.Port())
	switch {
	case ip.Is4():
		out.family = 4
		copyIP(&out, ip.AsSlice())
	case ip.Is6():
		out.family = 6
		out.scope = C.uint32_t(scopeID(ip.Zone()))
		copyIP(&out, ip.AsSlice())
	}
	return out
}

func copyIP(a *C.struct_blk_addr, ip []byte) {
	for i, b := range ip {
		a.ip[i] = C.uint8_t(b)
	}
}

func goAddr(a *C.struct_blk_addr) netip.AddrPort {
	raw := *(*[16]byte)(unsafe.Pointer(&a.ip))
	ip := netip.AddrFrom16(raw)
	if a.family == 4 {
		ip = netip.AddrFrom4([4]byte(raw[:4]))
	}
	if a.scope != 0 {
		ip = ip.WithZone(strconv.Itoa(int(a.scope)))
	}
	return netip.AddrPortFrom(ip, uint16(a.port))
}

// scopeID is the number of an interface given by name or number, 0 if there is none.
func scopeID(zone string) int {
	if n, err := strconv.Atoi(zone); err == nil {
		return n
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return i.Index
	}
	return 0
}
