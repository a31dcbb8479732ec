package softroce

import (
	"golang.org/x/sys/unix"

	"iserblk/verbs"
)

var _ verbs.InboundLimiter = (*conn)(nil)

// InboundLimit is as many bytes as fit the receiving socket, and 0 until that has overflowed once: most peers have no more
// packets under way than it has room for, and a driver that keeps up takes any number.
func (c *conn) InboundLimit() int { return c.inbound }

// limitInbound is for a socket that has overflowed. With each packet of data there may be a message to tell of it. c.mu is
// held.
func (c *conn) limitInbound() {
	c.inbound = max(1, receiveBuffer(c.receiver)/(charge(c.cfg.MTU)+charge(0))) * c.cfg.MTU
}

// countDrops has the kernel send word with each packet that it accepts after it had to drop one for want of room. A gap in
// the packets would not tell: the network loses some, too, and after those that were dropped none may come but they again.
func countDrops(fd int) { _ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1) }

// dropsLen is the room for that word: a control message with an uint32, of how many were dropped.
const dropsLen = unix.SizeofCmsghdr + 8

// overflowed tells whether the socket had dropped packets before the last of n was received. No other control messages are
// asked for, and this one does not come while there is nothing to count.
func (b *inBatch) overflowed(n int) bool { return n > 0 && b.msgs[n-1].hdr.Controllen > 0 }
