package multipath

import (
	"errors"
	"syscall"
	"time"

	"iserblk/internal/block"
	"iserblk/session"
	"iserblk/session/scsi"
)

// op is one request on its way through the unit: preallocated, one a tag.
type op struct {
	cmd   session.Command
	q     *Queue
	req   *block.Request
	tries int       // times that the command was sent again
	short int       // times that it came back short
	since time.Time // of the first failure that asked for patience
	next  *op       // in a list of q

	// unfenced: a nexus died with the command, which changes the unit. It may still be carried out.
	unfenced bool
}

// changes tells whether o changes the unit's content.
func (o *op) changes() bool {
	return o.req.Op == block.Write || o.req.Op == block.Discard || o.req.Op == block.WriteZeroes
}

// build makes the SCSI command for o's request.
func (o *op) build() syscall.Errno {
	q, r := o.q, o.req
	if r.Op == block.Allocation {
		return o.allocation()
	}
	if errno := q.unit.check(r); errno != 0 {
		return errno
	}
	bs := uint64(q.unit.limits.BlockSize)
	lba, blocks := r.Offset/bs, uint32(r.Length/bs)
	switch r.Op {
	case block.Read, block.Write:
		return o.transfer(lba, blocks)
	case block.Flush:
		o.flush()
	case block.Discard:
		return o.discard(lba, blocks)
	case block.WriteZeroes:
		id := &q.unit.identity
		o.writeSame(lba, blocks, r.Flags&block.NoUnmap == 0 && id.WriteSameUnmap && id.ReadsZeroes)
	default:
		return syscall.EOPNOTSUPP
	}
	return 0
}

// check refuses what a CDB cannot say or would say as something else: no blocks at all mean all blocks to WRITE SAME.
func (u *Unit) check(r *block.Request) syscall.Errno {
	l, size := &u.limits, u.size.Load()
	var most uint64
	switch r.Op {
	case block.Flush:
		return 0
	case block.Read, block.Write:
		most = min(uint64(l.MaxTransfer), uint64(len(r.Data)))
	case block.Discard:
		most = l.MaxDiscard
	case block.WriteZeroes:
		most = l.MaxWriteZeroes
	}
	switch {
	case r.Op != block.Read && l.ReadOnly:
		return syscall.EROFS
	case most == 0:
		return syscall.EOPNOTSUPP
	case r.Length == 0, r.Length > most, (r.Offset|r.Length)%uint64(l.BlockSize) != 0,
		r.Offset > size, r.Length > size-r.Offset, r.Data != nil && uint64(len(r.Data)) != r.Length:
		return syscall.EINVAL
	}
	return 0
}

func (o *op) transfer(lba uint64, blocks uint32) syscall.Errno {
	c, r, old := &o.cmd, o.req, o.q.unit.identity.Old
	fua := r.Flags&block.FUA != 0
	switch {
	case r.Op == block.Read && old:
		scsi.Read10(&c.CDB, uint32(lba), uint16(blocks), false)
	case r.Op == block.Read:
		scsi.Read16(&c.CDB, lba, blocks, false)
	case old:
		scsi.Write10(&c.CDB, uint32(lba), uint16(blocks), fua)
	default:
		scsi.Write16(&c.CDB, lba, blocks, fua)
	}
	c.Dir, c.Buf = session.In, session.Buffer{Mem: r.Data, Region: r.Region}
	if r.Op == block.Write {
		c.Dir = session.Out
	}
	return 0
}

// flush covers the whole unit: LBA 0 and no number of blocks (SBC-4 5.27).
func (o *op) flush() {
	if o.q.unit.identity.Old {
		scsi.SynchronizeCache10(&o.cmd.CDB, 0, 0)
	} else {
		scsi.SynchronizeCache16(&o.cmd.CDB, 0, 0)
	}
	o.cmd.Dir, o.cmd.Buf = session.NoData, session.Buffer{}
}

func (o *op) discard(lba uint64, blocks uint32) syscall.Errno {
	id, at := &o.q.unit.identity, int(o.req.Tag)*ParamSize
	switch {
	case id.Unmap:
		list := scsi.AppendUnmapList(o.q.params.Mem[at:at:at+ParamSize], scsi.Extent{LBA: lba, Blocks: blocks})
		scsi.Unmap(&o.cmd.CDB, uint16(len(list)))
		o.cmd.Dir, o.cmd.Buf = session.Out, session.Buffer{Mem: list, Region: o.q.params.Region}
	case id.WriteSameUnmap:
		o.writeSame(lba, blocks, true)
	default:
		return syscall.EOPNOTSUPP
	}
	return 0
}

// writeSame sends one block of zeroes: not every target knows NDOB.
func (o *op) writeSame(lba uint64, blocks uint32, unmap bool) {
	scsi.WriteSame16(&o.cmd.CDB, lba, blocks, unmap, false)
	o.cmd.Dir = session.Out
	o.cmd.Buf = session.Buffer{Mem: o.q.zeroes.Mem[:o.q.unit.limits.BlockSize], Region: o.q.zeroes.Region}
}

// CommandDone decides what becomes of the request (session.Completer).
func (o *op) CommandDone(c *session.Command) {
	switch {
	case errors.Is(c.Err, session.ErrNexusLost):
		o.unfenced = o.unfenced || c.Sent && o.changes()
		o.q.start(o) // parks: the path is down
	case errors.Is(c.Err, session.ErrNoBuffer):
		o.q.finish(o, syscall.EIO)
	case c.Err != nil:
		o.patience(syscall.ETIMEDOUT)
	case c.Status == scsi.StatusGood:
		o.good(c)
	default:
		o.failed(c)
	}
}

// good ends the request when all of its data was moved. A short transfer is never passed on: the tail of a read
// would be stale bytes, that of a write is missing at the target.
func (o *op) good(c *session.Command) {
	if o.req.Op == block.Allocation {
		o.located(c)
		return
	}
	if c.Short != 0 {
		if o.short++; o.short < maxShort {
			o.again()
			return
		}
		o.q.finish(o, syscall.EIO)
		return
	}
	o.q.backoff = retryMin
	if o.req.Op == block.Flush && o.q.unit.takeDeferred() {
		o.q.finish(o, syscall.EIO)
		return
	}
	o.q.finish(o, 0)
}

func (o *op) failed(c *session.Command) {
	if o.req.Op == block.Allocation && o.unlocated(c) {
		return
	}
	switch scsi.Classify(c.Status, c.Sense) {
	case scsi.ActionOK: // a recovered error
		o.good(c)
	case scsi.ActionRetry:
		o.again()
	case scsi.ActionCapacityChanged:
		o.q.noteSense(c.Sense)
		o.q.unit.stale.Store(true)
		o.q.path.poke()
		o.again()
	case scsi.ActionALUAChanged:
		o.q.noteSense(c.Sense)
		o.again()
	case scsi.ActionLUNsChanged, scsi.ActionInquiryChanged:
		// It may be another unit now. The check after a login tells, and nothing is sent before it.
		o.q.noteSense(c.Sense)
		o.q.path.recheck(errUnitsChanged)
		o.again()
	case scsi.ActionDeferred:
		// A write that was reported good is lost: the next flush says so.
		o.q.noteSense(c.Sense)
		o.q.unit.deferred.Store(true)
		o.again()
	case scsi.ActionRetryAfterDelay, scsi.ActionPathInactive:
		o.patience(syscall.EIO)
	default:
		o.q.noteSense(c.Sense)
		o.q.finish(o, scsi.Errno(c.Status, c.Sense))
	}
}

// again sends the command once more at once.
func (o *op) again() {
	if o.tries++; o.tries > maxTries {
		o.q.finish(o, syscall.EIO)
		return
	}
	o.q.stats.Retries++
	o.q.start(o)
}

// patience sends the command again after a pause, until the time for it is used up: then the request ends with errno.
func (o *op) patience(errno syscall.Errno) {
	if o.impatient(busyPatience) {
		o.q.finish(o, errno)
		return
	}
	o.q.delay(o)
}

// busyPatience is how long a target that answers may at least be busy with something else. NoPathTimeout may be none.
const busyPatience = 5 * time.Second

// impatient tells whether the first trouble with o was too long ago to go on. The time for it is NoPathTimeout, and no
// less than least.
func (o *op) impatient(least time.Duration) bool {
	now := time.Now()
	if o.since.IsZero() {
		o.since = now
	}
	limit := o.q.path.cfg.NoPathTimeout
	return limit >= 0 && now.Sub(o.since) > max(limit, least)
}
