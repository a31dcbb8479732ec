package ublk

import (
	"sync/atomic"
	"syscall"

	"iserblk/internal/block"
)

// Stats counts what a device has done since it was created.
type Stats struct {
	Ops      [block.WriteZeroes + 1]uint64 // requests completed without error, by block.Op
	Bytes    [block.WriteZeroes + 1]uint64 // their lengths
	Errors   uint64                        // requests that failed
	FUA      uint64                        // writes among Ops that had to be durable
	Shared   uint64                        // reads and writes among Ops in clients' own memory, see Config.Share
	InFlight uint64                        // requests that the logical unit has now
}

// counters are one queue's Stats. Only its lane writes them; anybody may read.
type counters struct {
	ops, bytes       [block.WriteZeroes + 1]atomic.Uint64
	errors, fua      atomic.Uint64
	shared           atomic.Uint64
	started, stopped atomic.Uint64
}

func (c *counters) begin() { c.started.Add(1) }

func (c *counters) end(r *block.Request, errno syscall.Errno, shared bool) {
	c.stopped.Add(1)
	if errno != 0 {
		c.errors.Add(1)
		return
	}
	c.ops[r.Op].Add(1)
	c.bytes[r.Op].Add(r.Length)
	if r.Flags&block.FUA != 0 {
		c.fua.Add(1)
	}
	if shared {
		c.shared.Add(1)
	}
}

// addTo sums the queues up. stopped is read first, so that InFlight is never negative.
func (c *counters) addTo(s *Stats) {
	for i := range c.ops {
		s.Ops[i] += c.ops[i].Load()
		s.Bytes[i] += c.bytes[i].Load()
	}
	s.Errors += c.errors.Load()
	s.FUA += c.fua.Load()
	s.Shared += c.shared.Load()
	stopped := c.stopped.Load()
	s.InFlight += c.started.Load() - stopped
}
