package verbs

import (
	"context"
	"net/netip"
)

// Acceptor is a Provider that can be the passive end too, as a target is. It is for test beds and demonstrations:
// simple blocking calls, one goroutine a message, no lane.
type Acceptor interface {
	// Listen takes connections at an address. Port 0 chooses one.
	Listen(ctx context.Context, a ListenAttr) (Listener, error)
}

// ListenAttr says where to listen and what to answer.
type ListenAttr struct {
	Addr netip.AddrPort
	// PrivateData goes into each CM reply: at most 56 bytes.
	PrivateData []byte
	// RecvDepth and RecvSize are the receive buffers of each connection: how many, and bytes of each.
	RecvDepth, RecvSize int
}

// Listener takes connections at one address.
type Listener interface {
	// Accept waits for the next connection. It fails when ctx ends or the listener is closed.
	Accept(ctx context.Context) (Peer, error)
	Addr() netip.AddrPort
	// Close stops listening. Connections that were accepted stay.
	Close() error
}

// Peer is the passive end of one connection: it moves data to and from the memory of the end that dialled.
// Recv belongs to one goroutine at a time; all other methods may be called from several at the same time.
type Peer interface {
	// PrivateData is what the CM request carried.
	PrivateData() []byte
	// Recv waits for one message, copies it to buf and returns its length.
	Recv(ctx context.Context, buf []byte) (int, error)
	// Send delivers one message to the other end's next receive buffer.
	Send(msg []byte) error
	// RDMAWrite writes b to the other end's memory, RDMARead fills b from it. They return when it is done.
	RDMAWrite(rkey uint32, va uint64, b []byte) error
	RDMARead(rkey uint32, va uint64, b []byte) error
	// Close disconnects. Calls that wait return an error.
	Close() error
	LocalAddr() netip.AddrPort
	RemoteAddr() netip.AddrPort
}
