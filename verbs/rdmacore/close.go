//go:build cgo && linux

package rdmacore

// #include "shim.h"
import "C"

import (
	"errors"
	"fmt"
	"time"

	"iserblk/verbs"
)

const (
	// closeTime is how long Close waits. What hangs in the kernel for longer goes on without it.
	closeTime = 5 * time.Second
	// drainTime is how long posted work may take to flush before its queue pair is destroyed, which ends it anyway.
	drainTime = 100 * time.Millisecond
	drainStep = time.Millisecond
	drainIdle = 3 // steps without a completion that end it
)

// Close disconnects and frees everything. If something hangs in the kernel for longer than five seconds the error says
// what, and the memory must not be used again.
func (c *conn) Close() error {
	c.closeOnce.Do(func() {
		if err := c.destroyWithin(closeTime); err != nil {
			c.closeErr = &verbs.OpError{Op: "close connection to", Peer: c.peer.String(), Err: err}
		}
	})
	return c.closeErr
}

// destroyWithin runs destroy on another goroutine and waits for it for a bounded time.
func (c *conn) destroyWithin(limit time.Duration) error {
	c.closed.Store(true)
	begin := "begin"
	c.step.Store(&begin)
	done := make(chan error, 1)
	go func() { done <- c.destroy() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("%w: cannot %s", verbs.ErrTimeout, *c.step.Load())
	}
}

// destroy takes a connection apart in the only order that works: whoever refers to something goes first, and the
// identifier, which keeps the device open, goes last. It stops at what will not go, because what that one refers to
// would not go either. All but the disconnect and the identifier is this host's own affair and needs no port.
func (c *conn) destroy() error {
	steps := []struct {
		name string
		do   func() error
	}{
		{"stop watching events", c.stopEvents},
		{"disconnect", c.disconnect},
		{"destroy queue pair", func() error { return errno(C.blk_destroy_qp(c.c)) }},
		{"destroy completion queue", func() error { return errno(C.blk_destroy_cq(c.c)) }},
		{"deregister memory", c.leaveDomain},
		{"leave device", c.leaveDevice},
		{"destroy CM identifier", c.leaveCM},
	}
	for i := range steps {
		c.step.Store(&steps[i].name)
		if err := steps[i].do(); err != nil {
			return fmt.Errorf("cannot %s: %w", steps[i].name, err)
		}
	}
	return nil
}

// stopEvents ends whatever tells of events, and tells the reader.
func (c *conn) stopEvents() error {
	if c.cm != nil {
		c.cm.close()
	}
	if c.cmEnded != nil {
		<-c.cmEnded
	}
	if c.device != nil {
		c.device.unsubscribe(c)
	}
	c.events.close()
	return nil
}

// disconnect tells the peer, if the connection was up, and flushes what is posted. A peer or CM that has ended the
// connection already makes that fail, which changes nothing.
func (c *conn) disconnect() error {
	if c.cmEnded == nil {
		return nil
	}
	c.hangUp()
	c.drain()
	return nil
}

// hangUp moves the queue pair to the error state and tells the peer, unless the port is down.
func (c *conn) hangUp() {
	if !c.portActive() || C.blk_disconnect(c.c) < 0 {
		C.blk_abort(c.c)
	}
}

// drain takes completions until none has come for a moment.
func (c *conn) drain() {
	var wcs [64]C.struct_blk_wc
	end := time.Now().Add(drainTime)
	for idle := 0; idle < drainIdle && time.Now().Before(end); idle++ {
		for C.blk_poll(c.c, &wcs[0], C.uint32_t(len(wcs))) > 0 {
			idle = 0
		}
		time.Sleep(drainStep)
	}
}

func (c *conn) leaveDomain() error {
	if c.domain == nil {
		return nil
	}
	return c.domain.detach()
}

func (c *conn) leaveDevice() error {
	if c.device != nil {
		c.device.leave()
	}
	return nil
}

// leaveCM destroys the identifier, or has that done when the port is up again: whatever the connection manager sends
// through rxe while its network device is shut, such as the end of a connection, breaks its queue pair 1 for good.
func (c *conn) leaveCM() error {
	if c.requested && !c.portActive() {
		go c.closeWithPort()
		return nil
	}
	return c.closeCM()
}

func (c *conn) closeCM() error {
	if r := C.blk_cm_close(c.c); r < 0 {
		return errno(r)
	}
	if c.noDevice || c.device != nil && c.device.gone.Load() {
		forgetRemoved()
	}
	C.blk_conn_free(c.c)
	return nil
}

var errNoMemory = &verbs.OpError{Op: "allocate connection", Err: errors.New("out of memory")}
