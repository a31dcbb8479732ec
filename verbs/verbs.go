// Package verbs is RDMA as an initiator needs it, whoever provides it: memory that a peer may reach
// (Arena), connected queue pairs (Conn) and work requests and completions (SendWR, RecvWR, WC).
//
// It holds no cgo and no iSCSI. A provider (verbs/rdmacore, verbs/verbstest) turns it into a wire. The names are
// those of the verbs (IBTA volume 1, chapter 11); the shape is Go's.
package verbs

import (
	"context"
	"net/netip"
	"time"
)

// Provider makes connections over one kind of RDMA.
type Provider interface {
	// Name is the word that users pick the provider by: "rdmacore".
	Name() string
	// Devices lists the RDMA devices that can be used now. No device at all is an empty list, not an error.
	Devices(ctx context.Context) ([]DeviceInfo, error)
	// Dial connects one reliable queue pair. It returns when the peer has accepted, ctx has ended or the
	// connection has failed, whichever is first, and leaves nothing behind when it fails. Every region that
	// a.Arena has by then is registered; all receives of a.Recvs are posted before the request goes out, so
	// that the peer may send at once.
	Dial(ctx context.Context, a DialAttr) (Conn, error)
}

// DeviceInfo describes one port of one RDMA device.
type DeviceInfo struct {
	Name      string     // "rxe0", "mlx5_0"
	Port      uint8      // from 1
	NetDev    string     // the network device behind a RoCE or iWARP port, "" when there is none
	Addr      netip.Addr // the address of its first routable GID, invalid when there is none
	LinkLayer string     // "Ethernet" or "InfiniBand"
	Active    bool       // the port's state is ACTIVE
	PathMTU   int        // bytes: 256 to 4096, 0 when it is not known
}

// DialAttr says what to connect to and how.
type DialAttr struct {
	Src netip.Addr     // the local address to leave by; the zero value lets routing choose
	Dst netip.AddrPort // the peer
	// PrivateData goes into the CM request: at most 56 bytes.
	PrivateData []byte
	// AckTimeout is rounded up to the next 4.096 µs·2^n; 0 keeps the provider's default.
	AckTimeout time.Duration
	// RetryCount is the transport's retry budget, 0 to 6. 7 means "for ever" to rxe and is refused.
	RetryCount uint8
	// RNRRetry protects the peer's sends towards us: 0 to 7, 7 is for ever.
	RNRRetry uint8
	// TOS is the IP type of service of the connection, 0 for the default.
	TOS uint8
	// SendDepth and RecvDepth are the most work requests posted at any time.
	SendDepth, RecvDepth int
	// MaxInline is how many bytes a send may carry inline; the provider may give less (Conn.MaxInline).
	MaxInline int
	// Arena holds all memory that this connection's work requests and the peer may touch.
	Arena *Arena
	// Recvs are posted before the connection request is sent. The provider finds their LKey by Addr, as there are
	// no keys before there is a device.
	Recvs []RecvWR
}

// Conn is one connected queue pair with one completion queue for both directions. All methods but Close,
// Events and Sync belong to the one goroutine that drives the connection.
type Conn interface {
	// PeerPrivateData is what the peer's CM reply carried, padded with zeroes by some transports. A missing
	// one reads as zeroes, so it proves nothing by itself.
	PeerPrivateData() []byte
	// LocalAddr and RemoteAddr are the two ends. Device names the port in use.
	LocalAddr() netip.AddrPort
	RemoteAddr() netip.AddrPort
	Device() DeviceInfo
	// MaxInline is the most bytes that a SendWR with Inline may carry.
	MaxInline() int
	// Keys are the keys of one region of the arena. The region must have been carved before Dial or Sync.
	Keys(r RegionID) Keys
	// Sync registers the regions that the arena has got since, and drops those it lost. It may block for
	// long; it may run beside the driving goroutine.
	Sync() error
	// PostSend posts the batch with one doorbell and returns how many were taken. A provider keeps no
	// reference to the slice itself. The memory belongs to the device until the WC (inline: until return).
	PostSend(wrs []SendWR) (int, error)
	// PostRecv posts receive buffers; they belong to the device until their WC.
	PostRecv(wrs []RecvWR) (int, error)
	// Poll takes up to len(wcs) completions. It never blocks.
	Poll(wcs []WC) (int, error)
	// Fd becomes readable after Arm when a completion arrives. It stays the provider's.
	Fd() int
	// Arm takes the pending notifications off Fd and asks for the next. Completions that came before it
	// raise none: poll once more after it, before sleeping.
	Arm() error
	// Events tells what happens besides completions. It is closed by Close.
	Events() <-chan Event
	// Abort moves the queue pair to the error state: the peer can no longer read or write our memory, and
	// every posted work request completes with StatusFlushed. It does not block and may be repeated.
	Abort() error
	// Close destroys the connection within a bounded time. After it returns, neither the device nor the
	// peer touches any memory. It may be called from any goroutine once the driver has stopped, and again.
	Close() error
}

// SGE is one piece of memory of a work request.
type SGE struct {
	Addr uint64 // virtual address in this process
	Len  uint32 // bytes
	LKey uint32
}

// SendWR is a SEND of up to two pieces in order.
type SendWR struct {
	ID       uint64 // comes back in WC.ID
	SGE      [2]SGE
	NumSGE   uint32
	Inline   uint32 // 1: the bytes are copied at once and LKey is not used
	Signaled uint32 // 1: raises a WC also when it succeeds; a failure always does
	_        uint32
}

// RecvWR is a buffer for one incoming SEND.
type RecvWR struct {
	ID  uint64
	SGE SGE
}

// WC is one work completion. Unless Status is StatusSuccess only ID and Status mean something, and Op does not.
type WC struct {
	ID        uint64
	Status    Status
	Op        WCOp
	Len       uint32 // bytes received, of a WCRecv
	Flags     WCFlags
	InvRKey   uint32 // the key that the peer invalidated, when Flags has WCWithInv
	VendorErr uint32
}

// WCOp says which kind of work completed.
type WCOp uint32

// The kinds of completed work.
const (
	WCSend WCOp = 0
	WCRecv WCOp = 128
)

// WCFlags qualifies a completion.
type WCFlags uint32

// WCWithInv marks a receive whose SEND invalidated InvRKey (IBV_WC_WITH_INV).
const WCWithInv WCFlags = 1 << 3

// EventKind is what an Event reports.
type EventKind uint8

// The events of a connection.
const (
	EventDisconnected EventKind = iota + 1 // the peer or the CM ended the connection
	EventPortDown                          // the local port lost its link; the QP does not know
	EventPortUp                            // the local port has a link again
	EventAddrChange                        // an address behind the path changed: a hint to probe
	EventDeviceGone                        // the device is being removed
	EventQPError                           // a fatal asynchronous error of this QP
)

// Event is something that happened to a connection.
type Event struct {
	Kind EventKind
	Err  error // the cause where there is one
}
