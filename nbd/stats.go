package nbd

import (
	"sync/atomic"
	"syscall"

	"iserblk/internal/block"
)

// Stats counts what an export has done since it was made.
type Stats struct {
	Ops      [block.Allocation + 1]uint64 // the unit's requests completed without error, by block.Op
	Bytes    [block.Allocation + 1]uint64 // their lengths
	Errors   uint64                       // the unit's requests that failed
	Refused  uint64                       // clients' requests answered with an error, those that failed included
	FUA      uint64                       // writes among Ops that had to be durable
	InFlight uint64                       // clients' requests that the logical unit has, or is to have, now
	Conns    int                          // connections
}

// counters are one hub's Stats. Only its lane writes them; anybody may read.
type counters struct {
	ops, bytes    [block.Allocation + 1]atomic.Uint64
	errors, fua   atomic.Uint64
	refused       atomic.Uint64
	started, left atomic.Uint64
}

func (c *counters) begin() { c.started.Add(1) }
func (c *counters) leave() { c.left.Add(1) }

// end counts one request of the unit. That it cannot tell what is allocated is no error.
func (c *counters) end(r *block.Request, errno syscall.Errno) {
	if errno != 0 {
		if r.Op != block.Allocation {
			c.errors.Add(1)
		}
		return
	}
	c.ops[r.Op].Add(1)
	c.bytes[r.Op].Add(r.Length)
	if r.Flags&block.FUA != 0 {
		c.fua.Add(1)
	}
}

// addTo sums the hubs up. left is read first, so that InFlight is never negative.
func (c *counters) addTo(s *Stats) {
	for i := range c.ops {
		s.Ops[i] += c.ops[i].Load()
		s.Bytes[i] += c.bytes[i].Load()
	}
	s.Errors += c.errors.Load()
	s.Refused += c.refused.Load()
	s.FUA += c.fua.Load()
	left := c.left.Load()
	s.InFlight += c.started.Load() - left
}
