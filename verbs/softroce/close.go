package softroce

import (
	"time"

	"golang.org/x/sys/unix"
)

// closeTime is how long Close waits for the peer to know. The connection manager goes on telling it afterwards.
const closeTime = 250 * time.Millisecond

// Close ends the connection. When it returns, nothing touches memory any more; no packet is received or sent.
func (c *conn) Close() error {
	c.closeOnce.Do(func() {
		silent := c.shut()
		if !c.isGone.Load() {
			c.end.disconnect(c)
			c.awaitEnd(silent)
		}
		c.destroy()
	})
	return nil
}

// shut ends the data path, and says whether the peer had stopped answering before.
func (c *conn) shut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.qp != nil {
		c.qp.Abort()
	}
	return c.silent
}

// awaitEnd gives the peer a moment to answer. One that does not answer packets will not answer this.
func (c *conn) awaitEnd(silent bool) {
	if silent {
		return
	}
	timer := time.NewTimer(closeTime)
	defer timer.Stop()
	select {
	case <-c.ended:
	case <-timer.C:
	}
}

// destroy frees what newConn made, and the connection's part in its endpoint. It is called once, when no driver is left.
func (c *conn) destroy() {
	c.end.unregister(c)
	c.free()
	c.end.provider.release(c.end)
}

func (c *conn) free() {
	c.mu.Lock()
	c.closed = true
	if c.receiver >= 0 {
		unix.Close(c.receiver)
		c.receiver = -1
	}
	unix.Close(c.fd)
	c.wake.close()
	c.mu.Unlock()
	c.events.close()
}
