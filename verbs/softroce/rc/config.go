package rc

import (
	"errors"
	"fmt"
	"time"

	"iserblk/verbs"
	"iserblk/verbs/softroce/wire"
)

// Statuses beside those that package verbs names (enum ibv_wc_status).
const (
	StatusRemInvReq verbs.Status = 9
	StatusRemOpErr  verbs.Status = 11
)

// Kinds of completed work beside those of package verbs (enum ibv_wc_opcode).
const (
	WCWrite verbs.WCOp = 1
	WCRead  verbs.WCOp = 2
)

// Errors of New and of posting.
var (
	ErrConfig  = errors.New("queue pair cannot be made")
	ErrFull    = errors.New("no room for another work request")
	ErrKey     = errors.New("memory is not registered under this key")
	ErrTooLong = errors.New("message is too long")
)

// Config is what both ends have agreed on, and the sizes.
type Config struct {
	LocalQPN, RemoteQPN uint32   // 24 bits
	SendPSN, RecvPSN    wire.PSN // of the first packet that we send and that we expect
	MTU                 int      // the path's: 256, 512, 1024, 2048 or 4096 bytes of data in a packet

	// AckTimeout times RetryCount+1 is how long the peer may leave everything unanswered. Packets are repeated sooner,
	// after what answers have taken so far. 0 means half a second.
	AckTimeout time.Duration
	RetryCount uint8
	// RNRRetry is how often in a row the peer may answer that it has no receive buffer; 7 is for ever. RNRTimer is the
	// code of the time that we ask for when we have none.
	RNRRetry, RNRTimer uint8

	SendDepth, RecvDepth int // most work requests posted, or done and not polled
	MaxInline            int // bytes
	IRD                  int // RDMA READs that the peer may have under way
	ORD                  int // RDMA READs that we may have under way
	// Window is the most packets under way: unacknowledged ones of ours, and those with the answers to our READs. The
	// latter must fit our socket's buffer. 0 means 64.
	Window int

	// Memory holds what work requests and the peer may touch.
	Memory *Memory
}

const (
	defaultTimeout = 500 * time.Millisecond
	defaultWindow  = 64
	maxWindow      = 1 << 14
	rnrForEver     = 7
	maxMessage     = 1 << 30
)

func (c *Config) complete() error {
	switch {
	case c.MTU < 256 || c.MTU > wire.MaxBytes || c.MTU&(c.MTU-1) != 0:
		return fmt.Errorf("%w: path MTU of %d", ErrConfig, c.MTU)
	case c.Memory == nil || c.SendDepth < 1 || c.RecvDepth < 1 || c.IRD < 0 || c.ORD < 0 || c.MaxInline < 0:
		return fmt.Errorf("%w: no room", ErrConfig)
	case c.LocalQPN > wire.PSNMask || c.RemoteQPN > wire.PSNMask || c.SendPSN > wire.PSNMask || c.RecvPSN > wire.PSNMask:
		return fmt.Errorf("%w: a number of more than 24 bits", ErrConfig)
	case c.RNRRetry > rnrForEver || c.RNRTimer > 31:
		return fmt.Errorf("%w: receiver-not-ready codes", ErrConfig)
	}
	if c.AckTimeout <= 0 {
		c.AckTimeout = defaultTimeout
	}
	if c.Window <= 0 {
		c.Window = defaultWindow
	}
	c.Window = min(c.Window, maxWindow)
	return nil
}

// Stats counts what a queue pair has seen since it was made.
type Stats struct {
	PacketsSent, PacketsReceived   uint64
	Retransmits                    uint64 // times that sending began again from the oldest unanswered packet
	Timeouts                       uint64 // of those, because nothing came
	SequenceNaks, RNRNaks          uint64 // received
	SequenceNaksSent, RNRNaksSent  uint64
	Duplicates                     uint64 // requests that came again
	Malformed                      uint64 // packets that do not parse, or for another queue pair
	Stale                          uint64 // answers to nothing that is under way
	InvalidRequests, AccessRefused uint64 // requests of the peer that were refused
}
