//go:build cgo && linux

package rdmacore

// #include "shim.h"
import "C"

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"iserblk/verbs"
)

var _ verbs.Conn = (*conn)(nil)

// conn is a connection, or as much of one as Dial has got to: destroy copes with every state.
type conn struct {
	queues
	events *eventQueue

	peer      netip.AddrPort
	local     netip.AddrPort
	info      verbs.DeviceInfo
	limits    C.struct_blk_device // of the device
	private   []byte
	maxInline int
	fd        int

	responderResources, initiatorDepth uint8

	cm      *poller
	cmEnded chan struct{} // the reader of CM events has ended; nil before there is one
	device  *device
	domain  *domain

	noDevice  bool // there was none on the route, or it went: librdmacm may still hold it open
	requested bool // the CM request went out: destroying the identifier sends something, too

	connecting atomic.Bool // a CM request waits for its answer
	portLost   atomic.Bool // and the port went down meanwhile

	qpObject, cqObject C.uintptr_t // to recognise asynchronous events by

	closeOnce sync.Once
	closeErr  error
	step      atomic.Pointer[string] // what destroy is doing
}

func (c *conn) PeerPrivateData() []byte    { return c.private }
func (c *conn) LocalAddr() netip.AddrPort  { return c.local }
func (c *conn) RemoteAddr() netip.AddrPort { return c.peer }
func (c *conn) Device() verbs.DeviceInfo   { return c.info }
func (c *conn) MaxInline() int             { return c.maxInline }
func (c *conn) Fd() int                    { return c.fd }
func (c *conn) Events() <-chan verbs.Event { return c.events.ch }

// Keys are the keys of a region, zero if it is not registered.
func (c *conn) Keys(r verbs.RegionID) verbs.Keys { return c.domain.regionKeys(r) }

// Sync registers new regions of the arena and drops released ones, for all connections on this device that share it.
func (c *conn) Sync() error {
	if c.closed.Load() {
		return verbs.ErrClosed
	}
	return c.domain.sync(context.Background())
}

// Abort moves the queue pair to the error state.
func (c *conn) Abort() error {
	if c.closed.Load() {
		return nil
	}
	if r := C.blk_abort(c.c); r < 0 {
		return &verbs.OpError{Op: "abort connection to", Peer: c.peer.String(), Err: errno(r)}
	}
	return nil
}

// readCM turns CM events into connection events until the poller is closed.
func (c *conn) readCM() {
	defer close(c.cmEnded)
	for {
		ev, err := c.nextCM()
		if err != nil {
			return
		}
		c.handleCM(&ev)
	}
}

// nextCM waits for the next CM event, at most until the poller's deadline.
func (c *conn) nextCM() (C.struct_blk_cm_event, error) {
	var ev C.struct_blk_cm_event
	var r C.int
	err := c.cm.wait(func() bool {
		r = C.blk_cm_next(c.c, &ev)
		return r != -C.int(syscall.EAGAIN)
	})
	if err == nil {
		err = errno(r)
	}
	return ev, err
}
