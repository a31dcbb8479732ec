package iser

import (
	"iserblk/session/pdu"
	"iserblk/verbs"
)

// credit counts what the target was asked to write, where the transport has to know that it fits. The bytes of a
// command count until its window would close: with its answer or its DeallocateTask, one of which every command
// comes to while the connection lives. So there is always something to wait for, and reads cannot stall.
type credit struct {
	limiter verbs.InboundLimiter // nil where everything fits
	bytes   []int                // by place, 0 where nothing is asked for
	asked   int                  // all together
}

// allows tells whether a command may ask for n bytes more. It may ask for any number alone.
func (c *credit) allows(n int) bool {
	if c.asked == 0 {
		return true
	}
	limit := c.limiter.InboundLimit()
	return limit == 0 || c.asked+n <= limit
}

// take counts the n bytes that a command asks for, whatever the limit: it may yet come.
func (c *credit) take(itt pdu.ITT, n int) {
	if c.limiter == nil {
		return
	}
	c.give(itt)
	for place(itt) >= len(c.bytes) {
		c.bytes = append(c.bytes, 0)
	}
	c.bytes[place(itt)] = n
	c.asked += n
}

// give takes off what a command has asked for, if anything.
func (c *credit) give(itt pdu.ITT) {
	if i := place(itt); i < len(c.bytes) {
		c.asked -= c.bytes[i]
		c.bytes[i] = 0
	}
}
