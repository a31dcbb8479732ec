package cm

import (
	"encoding/binary"
	"net/netip"
)

// IPHeader begins the private data of a REQ to a service of an IP port: who connects (annex A11.3, struct cma_hdr).
type IPHeader struct {
	Src  netip.AddrPort
	Dst  netip.Addr
	User []byte // what follows: the consumer's private data
}

const (
	ipVersion = 1 // IP version in the upper half
	ipPort    = 2
	ipSrc     = 4
	ipDst     = 20
	ipLen     = 36

	// UserPrivateLen is how much private data a REQ has room for behind the header.
	UserPrivateLen = REQPrivateLen - ipLen
)

// Put writes the header and the user's data, of which at most UserPrivateLen bytes fit.
func (h IPHeader) Put(b *[REQPrivateLen]byte) {
	*b = [REQPrivateLen]byte{}
	b[ipVersion] = 6 << 4
	if h.Dst.Is4() {
		b[ipVersion] = 4 << 4
	}
	binary.BigEndian.PutUint16(b[ipPort:], h.Src.Port())
	putIP(b[ipSrc:], h.Src.Addr())
	putIP(b[ipDst:], h.Dst)
	copy(b[ipLen:], h.User)
}

// putIP writes an address to 16 bytes. An IPv4 address stands in the last four, and the rest is zero.
func putIP(b []byte, a netip.Addr) {
	copy(b[16-a.BitLen()/8:], a.AsSlice())
}

// ParseIPHeader reads it. User refers to b.
func ParseIPHeader(b *[REQPrivateLen]byte) (h IPHeader, err error) {
	if b[0] != 0 {
		return h, malformed("IP header of version %d", b[0])
	}
	port := binary.BigEndian.Uint16(b[ipPort:])
	switch b[ipVersion] >> 4 {
	case 4:
		h.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[ipSrc+12:])), port)
		h.Dst = netip.AddrFrom4([4]byte(b[ipDst+12:]))
	case 6:
		h.Src = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[ipSrc:])), port)
		h.Dst = netip.AddrFrom16([16]byte(b[ipDst:]))
	default:
		return h, malformed("IP version %d", b[ipVersion]>>4)
	}
	h.User = b[ipLen:]
	return h, nil
}
