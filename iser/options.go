package iser

import (
	"net/netip"
	"time"

	"iserblk/session"
	"iserblk/verbs"
)

const (
	// DefaultMaxCommands keeps 8 of the 128 receive buffers of LIO, the fewest of any target, for other PDUs.
	DefaultMaxCommands = 128 - session.ControlSlots

	// maxData is the largest data segment in either direction: what targets have room for during login, and what
	// a Text response of a discovery session needs.
	maxData = 8192
	// spareRecvs are for what arrives besides answers to commands: NOP-In, Async Message, Reject, TMF, Logout.
	spareRecvs = 16
	// repostEvery is how many receive buffers are given back to the device at once.
	repostEvery = spareRecvs / 2
	// spareCommands are send slots for commands whose predecessors were answered before their send completed.
	spareCommands = 16
	// controlSends is twice what a nexus may have unanswered, for the same reason.
	controlSends = 2 * session.ControlSlots
	// defaultRetry is the transport's retry budget. 7 would mean for ever to rxe.
	defaultRetry = 5
	// rnrForEver lets the target's sends wait for our receives for as long as it takes; a NOP timer decides.
	rnrForEver = 7
)

// Options say whom to connect to and how.
type Options struct {
	Source netip.Addr     // the address to leave by; the zero value lets routing choose
	Target netip.AddrPort // the portal
	// Arena holds the buffers of all commands to come, and gets one more region for this connection's receive
	// buffers and headers: 1.3 MiB with DefaultMaxCommands.
	Arena *verbs.Arena
	// AckTimeout is how long the transport waits for an acknowledgement before it sends again; 0 is the provider's
	// default. A dead path is found after about RetryCount+1 of them.
	AckTimeout time.Duration
	RetryCount uint8 // retries of the transport: 1 to 6, 0 means 5
	TOS        uint8 // IP type of service of the connection
	// MaxCommands is how many commands may be unanswered; 0 means DefaultMaxCommands.
	MaxCommands int
	// Discovery asks for a connection without SCSI commands and with few buffers.
	Discovery bool
}

func (o Options) maxCommands() int {
	switch {
	case o.Discovery:
		return 0
	case o.MaxCommands <= 0:
		return DefaultMaxCommands
	}
	return o.MaxCommands
}

func (o Options) retryCount() uint8 {
	if o.RetryCount == 0 {
		return defaultRetry
	}
	return o.RetryCount
}

// dialAttr is the connection request for a connection with memory laid out as l.
func (o Options) dialAttr(l layout) verbs.DialAttr {
	return verbs.DialAttr{
		Src: o.Source, Dst: o.Target,
		PrivateData: []byte{cmPrivateDataFlag, 0, 0, 0},
		AckTimeout:  o.AckTimeout,
		RetryCount:  o.retryCount(),
		RNRRetry:    rnrForEver,
		TOS:         o.TOS,
		SendDepth:   l.sendDepth(),
		RecvDepth:   l.recvs,
		MaxInline:   HeadersLen,
		Arena:       o.Arena,
	}
}
