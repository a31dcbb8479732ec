package wire

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

// Flow computes and checks the invariant CRC of the packets from one address to another. The CRC covers the IP and
// UDP headers too, with what routers change replaced by ones (IBTA A17.9.2):
//
//	8 bytes FF | IP header | UDP header | BTH with its congestion byte FF | the rest with padding
//
// It has room to work in and so is not safe for concurrent use.
type Flow struct {
	prefix [8 + ipv6Len + udpLen + BTHLen]byte // what stands before the extension headers, masked
	ip     int                                 // length of the IP header: 20 or 40
	zeroes [ICRCLen]byte
}

const (
	ipv4Len = 20
	ipv6Len = 40
	udpLen  = 8

	protoUDP     = 17
	dontFragment = 0x40 // in byte 6 of an IPv4 header
	idOffset     = 4    // in an IPv4 header
)

// NewFlow makes the flow of packets from src to dst, both IPv4 or both IPv6. An IPv4 packet has ID 0 and may not be
// fragmented: what Linux sends from an unconnected socket with IP_PMTUDISC_DO.
func NewFlow(src, dst netip.AddrPort) *Flow {
	f := new(Flow)
	for i := range f.prefix {
		f.prefix[i] = 0xff
	}
	from, to := src.Addr().Unmap(), dst.Addr().Unmap()
	b := f.prefix[8:]
	if from.Is4() && to.Is4() {
		f.ip = ipv4Len
		putIPv4(b, from.As4(), to.As4())
	} else {
		f.ip = ipv6Len
		putIPv6(b, src.Addr().As16(), dst.Addr().As16())
	}
	binary.BigEndian.PutUint16(b[f.ip:], src.Port())
	binary.BigEndian.PutUint16(b[f.ip+2:], dst.Port())
	return f
}

// putIPv4 leaves type of service, time to live and checksum masked; the length comes with each packet.
func putIPv4(b []byte, src, dst [4]byte) {
	b[0] = 0x45
	copy(b[idOffset:], []byte{0, 0, dontFragment, 0})
	b[9] = protoUDP
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
}

// putIPv6 leaves traffic class, flow label and hop limit masked.
func putIPv6(b []byte, src, dst [16]byte) {
	b[0] = 0x6f
	b[6] = protoUDP
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
}

// begin is the CRC of the prefix for a packet of n bytes from its BTH to its ICRC.
func (f *Flow) begin(bth []byte, n int) uint32 {
	b := f.prefix[8:]
	if f.ip == ipv4Len {
		binary.BigEndian.PutUint16(b[2:], uint16(ipv4Len+udpLen+n))
	} else {
		binary.BigEndian.PutUint16(b[4:], uint16(udpLen+n))
	}
	udp := b[f.ip:]
	binary.BigEndian.PutUint16(udp[4:], uint16(udpLen+n))
	copy(udp[udpLen:udpLen+BTHLen], bth)
	udp[udpLen+4] = 0xff
	return crc32.ChecksumIEEE(f.prefix[:8+f.ip+udpLen+BTHLen])
}

// Seal computes the ICRC of a packet that is in pieces, as a gathering send wants it: its headers, up to two pieces of
// data, and a trailer of padding and room for the ICRC, which is written there.
func (f *Flow) Seal(header []byte, data *[2][]byte, trailer []byte) {
	n := len(header) + len(data[0]) + len(data[1]) + len(trailer)
	pad := len(trailer) - ICRCLen
	crc := f.begin(header[:BTHLen], n)
	crc = crc32.Update(crc, crc32.IEEETable, header[BTHLen:])
	crc = crc32.Update(crc, crc32.IEEETable, data[0])
	if len(data[1]) > 0 {
		crc = crc32.Update(crc, crc32.IEEETable, data[1])
	}
	if pad > 0 {
		crc = crc32.Update(crc, crc32.IEEETable, trailer[:pad])
	}
	binary.LittleEndian.PutUint32(trailer[pad:], crc)
}

// SealWhole appends the ICRC to a packet that is in one piece.
func (f *Flow) SealWhole(packet []byte) []byte {
	var none [2][]byte
	n := len(packet)
	packet = append(packet, f.zeroes[:]...)
	f.Seal(packet[:n], &none, packet[n:])
	return packet
}

// Check tells whether the ICRC of a datagram that came from srcPort is right. A UDP socket does not show the ID and
// the flags of an IPv4 header, which the CRC covers: there it accepts what is right for any ID, with or without Don't
// Fragment. As the CRC is linear, that costs 17 of its 32 bits.
func (f *Flow) Check(srcPort uint16, datagram []byte) bool {
	body := len(datagram) - ICRCLen
	if body < BTHLen || len(datagram) > MaxPacket {
		return false
	}
	binary.BigEndian.PutUint16(f.prefix[8+f.ip:], srcPort)
	crc := f.begin(datagram[:BTHLen], len(datagram))
	crc = crc32.Update(crc, crc32.IEEETable, datagram[BTHLen:body])
	diff := crc ^ binary.LittleEndian.Uint32(datagram[body:])
	return diff == 0 || f.ip == ipv4Len && fromHiddenBits(diff, ipv4Len-idOffset+udpLen+body)
}

// fromHiddenBits tells whether a difference of CRCs can come from other ID and DF bits alone, n bytes before the end.
// Bytes b0..b3 that differ at the start of those n, and no other, give the CRC that the state b3b2b1b0 has after n zero
// bytes; taking those n steps back gives the bytes.
func fromHiddenBits(diff uint32, n int) bool {
	bytes := multiply(diff, stepsBack[n])
	return bytes&^(0xffff|dontFragment<<16) == 0
}

// A CRC state is a polynomial over GF(2) modulo the CRC-32 polynomial, its highest power in the lowest bit.
const (
	polyOne = 1 << 31 // x^0
	crcPoly = crc32.IEEE
)

// multiply multiplies two states modulo the polynomial.
func multiply(a, b uint32) uint32 {
	var p uint32
	for range 32 {
		p ^= b & -(a >> 31) // the coefficient of the next higher power of x in a
		a <<= 1
		b = b>>1 ^ crcPoly&-(b&1) // b times x
	}
	return p
}

// stepsBack[n] undoes n zero bytes: x^-8n.
var stepsBack = func() (table [ipv4Len + udpLen + MaxPacket]uint32) {
	// x divides P+1, as P has a constant term: 1/x is (P+1)/x.
	back := uint32(polyOne)
	for range 8 {
		back = divideByX(back)
	}
	table[0] = polyOne
	for n := 1; n < len(table); n++ {
		table[n] = multiply(table[n-1], back)
	}
	return table
}()

func divideByX(a uint32) uint32 {
	if a&polyOne != 0 {
		return (a^crcPoly)<<1 | 1
	}
	return a << 1
}
