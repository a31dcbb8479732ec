package isertarget

import (
	"context"
	"net/netip"

	"iserblk/verbs/verbstest"
)

// Endpoint is the passive end of one connection. *verbstest.Peer is one.
type Endpoint interface {
	// Recv waits for one message, copies it to buf and returns its length.
	Recv(ctx context.Context, buf []byte) (int, error)
	// Send delivers one message to the initiator's next receive buffer.
	Send(msg []byte) error
	// RDMAWrite writes b to the initiator's memory, RDMARead fills b from it.
	RDMAWrite(rkey uint32, va uint64, b []byte) error
	RDMARead(rkey uint32, va uint64, b []byte) error
	// Close disconnects. Calls that wait return an error.
	Close() error
	LocalAddr() netip.AddrPort
	RemoteAddr() netip.AddrPort
}

// Listener takes connections at one portal.
type Listener interface {
	Accept(ctx context.Context) (Endpoint, error)
	Addr() netip.AddrPort
	Close() error
}

// cmReply is what LIO answers an initiator that cannot have keys invalidated: neither zero-based addresses nor SEND
// with invalidate (IBTA annex A12).
var cmReply = []byte{0xc0, 0, 0, 0}

// InMemory makes a portal of a verbstest listener.
func InMemory(l *verbstest.Listener) Listener {
	l.SetPrivateData(cmReply)
	return inMemory{l}
}

type inMemory struct{ *verbstest.Listener }

func (l inMemory) Accept(ctx context.Context) (Endpoint, error) {
	p, err := l.Listener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return p, nil
}
