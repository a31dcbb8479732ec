package cm

import (
	"math/bits"
	"net/netip"
	"time"
)

// REQ asks for a connection (IBTA volume 1, table 106).
type REQ struct {
	TID       uint64
	LocalID   uint32 // the sender's identifier
	ServiceID uint64 // what to connect to: see ServiceID
	GUID      uint64 // of the sender's channel adapter
	QPN       uint32 // the sender's queue pair
	// RecvPSN is the field "starting PSN": the first packet number that the sender expects, and so the one that the
	// receiver of the message has to begin with.
	RecvPSN uint32
	// ResponderResources is how many RDMA reads the sender can answer at a time, InitiatorDepth how many it issues.
	ResponderResources, InitiatorDepth uint8
	// ResponseTimeout is how long the receiver may take for its answer, LocalTimeout how long the sender takes for
	// its own, as codes: see Timeout.
	ResponseTimeout, LocalTimeout uint8
	RetryCount, RNRRetry          uint8 // for the receiver's sends towards the sender
	MaxCMRetries                  uint8
	MTU                           uint8 // path MTU as a code: see MTUCode
	AckTimeout                    uint8 // for the receiver's sends, as a code
	TransportType                 uint8 // 0 is a reliable connection
	PKey                          uint16
	Src, Dst                      netip.Addr // the GIDs
	FlowLabel                     uint32     // 20 bits, of which the receiver makes its UDP source port
	TrafficClass, HopLimit        uint8
	Private                       [REQPrivateLen]byte
}

// REQPrivateLen is how many bytes of private data a REQ carries, those of the IP header of annex A11 included.
const REQPrivateLen = 92

// Offsets in a REQ. A bit field shares its byte with the fields named behind it.
const (
	reqServiceID    = body + 8
	reqGUID         = body + 16
	reqQPN          = body + 32
	reqResources    = body + 35
	reqDepth        = body + 39
	reqRespTimeout  = body + 43 // 5 bits; transport type 2; end-to-end flow control 1
	reqPSN          = body + 44
	reqLocalTimeout = body + 47 // 5 bits; retry count 3
	reqPKey         = body + 48
	reqMTU          = body + 50 // 4 bits; RDC exists 1; RNR retry count 3
	reqMaxRetries   = body + 51 // 4 bits; SRQ 1; extended transport type 3
	reqLIDs         = body + 52
	reqSrcGID       = body + 56
	reqDstGID       = body + 72
	reqFlowLabel    = body + 88 // 20 bits
	reqTraffic      = body + 92
	reqHopLimit     = body + 93
	reqSubnetLocal  = body + 94
	reqAckTimeout   = body + 95 // 5 bits
	reqPrivate      = body + 140
)

// permissiveLIDs stand where a RoCE port has no local identifiers.
const permissiveLIDs = 0xffffffff

// Encode writes the message.
func (r *REQ) Encode() (m MAD) {
	m.header(AttrREQ, r.TID, r.LocalID, 0)
	m.put64(reqServiceID, r.ServiceID)
	m.put64(reqGUID, r.GUID)
	m.put24(reqQPN, r.QPN)
	m[reqResources], m[reqDepth] = r.ResponderResources, r.InitiatorDepth
	m[reqRespTimeout] = r.ResponseTimeout<<3 | r.TransportType&3<<1
	m.put24(reqPSN, r.RecvPSN)
	m[reqLocalTimeout] = r.LocalTimeout<<3 | r.RetryCount&7
	m.put16(reqPKey, r.PKey)
	m[reqMTU] = r.MTU<<4 | r.RNRRetry&7
	m[reqMaxRetries] = r.MaxCMRetries << 4
	m.put32(reqLIDs, permissiveLIDs)
	putGID(m[reqSrcGID:], r.Src)
	putGID(m[reqDstGID:], r.Dst)
	m.put32(reqFlowLabel, r.FlowLabel<<12)
	m[reqTraffic], m[reqHopLimit] = r.TrafficClass, r.HopLimit
	m[reqAckTimeout] = r.AckTimeout << 3
	copy(m[reqPrivate:], r.Private[:])
	return m
}

// ParseREQ reads the message; its kind has been looked at.
func ParseREQ(m *MAD) (r REQ, err error) {
	r = REQ{
		TID: m.TID(), LocalID: m.LocalID(), ServiceID: m.u64(reqServiceID), GUID: m.u64(reqGUID),
		QPN: m.u24(reqQPN), RecvPSN: m.u24(reqPSN),
		ResponderResources: m[reqResources], InitiatorDepth: m[reqDepth],
		ResponseTimeout: m[reqRespTimeout] >> 3, LocalTimeout: m[reqLocalTimeout] >> 3,
		RetryCount: m[reqLocalTimeout] & 7, RNRRetry: m[reqMTU] & 7, MaxCMRetries: m[reqMaxRetries] >> 4,
		MTU: m[reqMTU] >> 4, AckTimeout: m[reqAckTimeout] >> 3,
		TransportType: m[reqRespTimeout] >> 1 & 3, PKey: m.u16(reqPKey),
		Src: gid(m[reqSrcGID:]), Dst: gid(m[reqDstGID:]),
		FlowLabel: m.u32(reqFlowLabel) >> 12, TrafficClass: m[reqTraffic], HopLimit: m[reqHopLimit],
	}
	copy(r.Private[:], m[reqPrivate:])
	if MTU(r.MTU) == 0 {
		return r, malformed("path MTU code %d", r.MTU)
	}
	if r.QPN <= 1 {
		return r, malformed("queue pair %d", r.QPN)
	}
	return r, nil
}

// gid is the address that a RoCEv2 GID stands for: an IPv4 address is mapped into IPv6.
func gid(b []byte) netip.Addr { return netip.AddrFrom16([16]byte(b[:16])).Unmap() }

func putGID(b []byte, a netip.Addr) {
	g := a.As16()
	copy(b, g[:])
}

// serviceTCP is the port space of RDMA_PS_TCP, in which iSER has its port (annex A11.2).
const serviceTCP = 0x0000000001060000

// ServiceID is what a TCP port number means to the connection manager.
func ServiceID(port uint16) uint64 { return serviceTCP | uint64(port) }

// ServicePort is the port of a service, and whether it has one.
func ServicePort(id uint64) (uint16, bool) { return uint16(id), id&^0xffff == serviceTCP }

// MTU is the path MTU of a code in bytes of payload, 0 for a code that means none (IBTA volume 1, table 106).
func MTU(code uint8) int {
	if code < 1 || code > 5 {
		return 0
	}
	return 128 << code
}

// MTUCode is the code of a path MTU: 256, 512, 1024, 2048 or 4096; anything else is rounded down to one.
func MTUCode(mtu int) uint8 { return uint8(min(max(bits.Len(uint(max(mtu, 0))), 9)-8, 5)) }

// timeoutUnit is what code 0 of a timeout stands for; each further code doubles it (IBTA volume 1, 9.7.6.1.3).
const timeoutUnit = 4096 * time.Nanosecond

// Timeout is the duration of a 5-bit code.
func Timeout(code uint8) time.Duration { return timeoutUnit << (code & 31) }

// TimeoutCode is the least code that stands for at least d.
func TimeoutCode(d time.Duration) uint8 {
	units := (d + timeoutUnit - 1) / timeoutUnit
	if units <= 1 {
		return 0
	}
	return uint8(min(bits.Len64(uint64(units-1)), 31))
}
