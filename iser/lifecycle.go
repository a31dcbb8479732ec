package iser

import (
	"errors"
	"fmt"

	"iserblk/session"
	"iserblk/verbs"
)

var (
	errNoKeys    = fmt.Errorf("%w: its region is not registered on this connection", session.ErrNoBuffer)
	errShortPost = errors.New("the device took fewer work requests than it was sized for")
)

// Knows says whether commands can have their data in a region. It is for the goroutine that has made the connection.
func (c *Conn) Knows(id verbs.RegionID) bool { return c.qp.Keys(id) != verbs.Keys{} }

// fail marks the connection as lost by err, unless it already was by something earlier: the first cause explains the
// rest. It returns that first cause.
func (c *Conn) fail(op string, err error) error {
	if c.err == nil {
		c.err = c.fault(op, err)
	}
	return c.err
}

func (c *Conn) fault(op string, err error) error {
	return &Error{Op: op, Peer: c.info.Remote.String(), Err: err}
}

// cause is why the connection cannot be used any more.
func (c *Conn) cause() error {
	if c.err != nil {
		return c.err
	}
	return errAborted
}

// Abort ends the connection at once and drops what was queued but not flushed. The target can begin nothing more;
// what it had begun ends when Drained says so. It may be repeated.
func (c *Conn) Abort() {
	if c.aborted {
		return
	}
	c.aborted = true
	c.queue, c.repost = c.queue[:0], c.repost[:0]
	if err := c.qp.Abort(); err != nil {
		_ = c.fail("abort connection to", err)
		return
	}
	c.postBeacon()
}

// Drained reports that Abort was called and every posted work request has come back, so that neither the device nor
// the target can touch any buffer. If it never does, Close brings the same about.
func (c *Conn) Drained() bool { return c.aborted && c.posted == 0 }

// Close frees the connection and gives its region back to the arena, within a bounded time. After it no buffer can be
// touched. Any goroutine may call it once the driver has stopped, and again: the result stays the same.
func (c *Conn) Close() error {
	c.closeOnce.Do(c.close)
	return c.closeErr
}

func (c *Conn) close() {
	c.aborted = true
	if err := c.qp.Close(); err != nil {
		c.closeErr = c.fault("close connection to", err)
		return // whether the device lets go of the region is not known: it is never used again
	}
	c.arena.Release(c.region)
}
