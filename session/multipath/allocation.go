package multipath

import (
	"syscall"

	"iserblk/internal/block"
	"iserblk/session"
	"iserblk/session/scsi"
)

// allocation makes o ask the unit which blocks have space (GET LBA STATUS, SBC-3). Only thin units have something to say
// about that, and not all of them know the command: those are asked once.
func (o *op) allocation() syscall.Errno {
	u, r := o.q.unit, o.req
	bs, size := uint64(u.limits.BlockSize), u.size.Load()
	thin := u.identity.Unmap || u.identity.WriteSameUnmap
	switch {
	case !thin || u.identity.Old || u.mute.Load() || len(r.Data) == 0:
		return syscall.EOPNOTSUPP
	case r.Length == 0, (r.Offset|r.Length)%bs != 0, r.Offset > size, r.Length > size-r.Offset, cap(r.Extents) == 0:
		return syscall.EINVAL
	}
	clear(r.Data) // what the target leaves out must not be what was there before
	scsi.GetLBAStatus(&o.cmd.CDB, r.Offset/bs, uint32(len(r.Data)))
	o.cmd.Dir, o.cmd.Buf = session.In, session.Buffer{Mem: r.Data, Region: r.Region}
	return 0
}

// located hands the unit's answer on. It is as long as the unit has something to say: less than there was room for is
// no short transfer.
func (o *op) located(c *session.Command) {
	o.q.backoff = retryMin
	u := o.q.unit
	runs, err := scsi.ParseLBAStatus(c.Buf.Mem[:len(c.Buf.Mem)-int(c.Short)])
	if err == nil {
		o.req.Extents = appendExtents(o.req.Extents[:0], runs, o.req, uint64(u.limits.BlockSize), u.identity.ReadsZeroes)
	}
	if len(o.req.Extents) == 0 {
		o.q.finish(o, syscall.EOPNOTSUPP)
		return
	}
	o.q.finish(o, 0)
}

// unlocated takes the answer of a unit that does not know the question; it is not asked again.
func (o *op) unlocated(c *session.Command) bool {
	if scsi.Classify(c.Status, c.Sense) != scsi.ActionUnsupported {
		return false
	}
	o.q.unit.mute.Store(true)
	o.q.finish(o, syscall.EOPNOTSUPP)
	return true
}

// appendExtents says what runs, which a unit has listed, mean for r's range: from its start on, as far as they follow
// one another. Neighbours of one kind become one.
func appendExtents(to []block.Extent, runs []scsi.LBAStatus, r *block.Request, bs uint64, readsZeroes bool) []block.Extent {
	at, end := r.Offset/bs, (r.Offset+r.Length)/bs
	for i := range runs {
		first, next := runs[i].LBA, runs[i].LBA+uint64(runs[i].Blocks)
		if next <= at || next < first {
			continue
		}
		if first > at || at == end {
			break
		}
		free := runs[i].Status == scsi.LBADeallocated
		zero := readsZeroes && (free || runs[i].Status == scsi.LBAAnchored)
		e := block.Extent{Length: (min(next, end) - at) * bs, Hole: free, Zero: zero}
		at = min(next, end)
		if n := len(to); n > 0 && to[n-1].Hole == e.Hole && to[n-1].Zero == e.Zero {
			to[n-1].Length += e.Length
			continue
		}
		if len(to) == cap(to) {
			break
		}
		to = append(to, e)
	}
	return to
}
