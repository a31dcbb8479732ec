package multipath

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"iserblk/internal/block"
	"iserblk/session"
	"iserblk/session/scsi"
)

// Unit is one logical unit of a target: what it is, and its queue on every lane.
type Unit struct {
	lun      scsi.LUN
	identity session.LogicalUnit
	limits   block.Limits
	queues   []*Queue
	size     atomic.Uint64 // bytes; limits has what it was at first
	state    atomic.Uint32
	stale    atomic.Bool  // it has said that it has changed, and was not looked at since
	deferred atomic.Bool  // a completed write was lost and no flush has said so yet
	mute     atomic.Bool  // it does not know what is allocated
	hazards  atomic.Int32 // queues that gave a write up whose old copy may still be carried out: see Queue.abandon

	growing  sync.Mutex
	onResize func(size uint64)
}

// UnitState says whether a unit's requests are carried out.
type UnitState uint32

// The states of a unit.
const (
	UnitServing     UnitState = iota
	UnitQuarantined           // what answers at its LUN is not what was attached: nothing is sent to it
	UnitFailing               // it is being detached by force: every request ends with EIO
)

// String is the state's name as status shows it.
func (s UnitState) String() string {
	return [...]string{"serving", "quarantined", "failing"}[s]
}

// NewUnit describes the unit that was found at lu.LUN. maxTransfer and depth bound one queue's requests, in bytes
// and in number.
func NewUnit(lu session.LogicalUnit, maxTransfer uint32, depth uint16) *Unit {
	u := &Unit{lun: lu.LUN, identity: lu, limits: limitsOf(lu, maxTransfer, depth)}
	u.size.Store(u.limits.Size)
	return u
}

// OnResize has f called with the new size, in bytes, whenever the unit was found to have grown; requests up to there are
// carried out by then. f is called on a goroutine of a path, one call at a time, and should not take long. It must be set
// before the unit is served. A unit that has become smaller is not the same any more: it is quarantined.
func (u *Unit) OnResize(f func(size uint64)) { u.onResize = f }

// grow takes note of a size that is no less than what was.
func (u *Unit) grow(lu session.LogicalUnit, log *slog.Logger) {
	u.growing.Lock()
	defer u.growing.Unlock()
	was, size := u.size.Load(), lu.Blocks*uint64(lu.BlockSize)
	if size <= was {
		return
	}
	u.size.Store(size)
	log.Info("unit has grown", "lun", u.lun.String(), "from", was, "to", size)
	if u.onResize != nil {
		u.onResize(size)
	}
}

// LUN is the unit's number at its target.
func (u *Unit) LUN() scsi.LUN { return u.lun }

// Identity is what the unit said about itself when it was attached. Limits tells its size now.
func (u *Unit) Identity() session.LogicalUnit { return u.identity }

// Limits is what a front end may ask of the unit's queues now.
func (u *Unit) Limits() block.Limits {
	l := u.limits
	l.Size = u.size.Load()
	return l
}

// State is safe to call from any goroutine.
func (u *Unit) State() UnitState { return UnitState(u.state.Load()) }

// Fail makes every request of the unit end with EIO, those that wait for a path at once. Requests that a target
// holds end when it answers or its nexus is drained. It returns at once; there is no way back.
func (u *Unit) Fail() {
	u.state.Store(uint32(UnitFailing))
	for _, q := range u.queues {
		q.path.cfg.Lane.Post(q.failParked)
	}
}

// release lets the queues of every lane try again what has waited for the unit.
func (u *Unit) release() {
	for _, q := range u.queues {
		q.path.cfg.Lane.Post(q.retry)
	}
}

// maxZeroing bounds one Discard or WriteZeroes: a target may take long over it, and the limits of older kernels and
// of VPD B0 are near 2^32 blocks.
const maxZeroing = 1 << 30

const (
	// transferUnit is what the largest transfer is a multiple of where the unit allows for it: a page, of which front
	// ends want whole ones.
	transferUnit = 4096
	// maxOldBlocks is the most blocks of a 10-byte command.
	maxOldBlocks = 1<<16 - 1
)

func limitsOf(lu session.LogicalUnit, maxTransfer uint32, depth uint16) block.Limits {
	l := block.Limits{
		Size:              lu.Blocks * uint64(lu.BlockSize),
		BlockSize:         lu.BlockSize,
		PhysicalBlockSize: max(lu.PhysicalBlockSize, lu.BlockSize),
		OptimalIO:         lu.OptimalTransfer,
		MaxTransfer:       transferLimit(lu, maxTransfer),
		Depth:             depth,
		ReadOnly:          lu.ReadOnly,
		WriteCache:        lu.WriteCache,
		FUA:               lu.WriteCache && lu.FUA,
		Rotational:        lu.Rotational,
	}
	if lu.ReadOnly {
		return l
	}
	switch {
	case lu.Unmap:
		l.MaxDiscard = zeroingLimit(lu, lu.MaxUnmapBlocks)
	case lu.WriteSameUnmap:
		l.MaxDiscard = zeroingLimit(lu, lu.MaxWriteSameBlocks)
	}
	if l.MaxDiscard > 0 {
		l.DiscardGranularity, l.DiscardAlignment = granules(lu)
	}
	if lu.WriteSame {
		l.MaxWriteZeroes = zeroingLimit(lu, lu.MaxWriteSameBlocks)
		l.FastZeroes = lu.WriteSameUnmap && lu.ReadsZeroes
	}
	return l
}

// transferLimit is the largest Read or Write in bytes: what the unit takes, what its commands can say and what the
// buffers hold, whichever is least.
func transferLimit(lu session.LogicalUnit, most uint32) uint32 {
	n := uint64(most)
	if lu.MaxTransfer > 0 {
		n = min(n, uint64(lu.MaxTransfer))
	}
	if lu.Old {
		n = min(n, maxOldBlocks*uint64(lu.BlockSize))
	}
	whole := uint64(max(transferUnit, lu.BlockSize))
	if n < whole {
		whole = uint64(lu.BlockSize)
	}
	return uint32(n - n%whole)
}

// granules are the granularity and the alignment of discards in bytes; those of a unit whose claims make no sense are
// left out.
func granules(lu session.LogicalUnit) (granularity, alignment uint32) {
	size := uint64(lu.UnmapGranularity) * uint64(lu.BlockSize)
	offset := uint64(lu.UnmapAlignment) * uint64(lu.BlockSize)
	if size == 0 || size > maxZeroing {
		return lu.BlockSize, 0
	}
	return uint32(size), uint32(offset % size)
}

// zeroingLimit is the largest Discard or WriteZeroes in bytes, given the unit's own limit in blocks (0: none said).
func zeroingLimit(lu session.LogicalUnit, blocks uint64) uint64 {
	if blocks == 0 || blocks > maxZeroing/uint64(lu.BlockSize) {
		return maxZeroing
	}
	return blocks * uint64(lu.BlockSize)
}

// sameUnit tells whether lu, found at u's LUN after a login, is what was attached: identity, serial, capacity and
// block size (DESIGN safety rule 4). A unit that has grown is the same.
func (u *Unit) sameUnit(lu session.LogicalUnit) error {
	was := u.identity
	switch {
	case lu.WWN != was.WWN:
		return fmt.Errorf("LUN %v is now %q, was %q", u.lun, lu.WWN, was.WWN)
	case lu.Serial != was.Serial:
		return fmt.Errorf("LUN %v has now serial %q, had %q", u.lun, lu.Serial, was.Serial)
	case lu.BlockSize != was.BlockSize:
		return fmt.Errorf("LUN %v has now blocks of %d bytes, had %d", u.lun, lu.BlockSize, was.BlockSize)
	case lu.Blocks*uint64(lu.BlockSize) < u.size.Load():
		return fmt.Errorf("LUN %v has now %d blocks, had %d", u.lun, lu.Blocks, u.size.Load()/uint64(lu.BlockSize))
	case lu.ReadOnly && !was.ReadOnly:
		return fmt.Errorf("LUN %v is now write protected", u.lun)
	case lu.WriteCache && !was.WriteCache:
		return fmt.Errorf("LUN %v has now a volatile write cache, which nobody would flush", u.lun)
	case was.FUA && was.WriteCache && lu.WriteCache && !lu.FUA:
		return fmt.Errorf("LUN %v does not honour FUA any more", u.lun)
	}
	return nil
}

// takeDeferred reports once that a completed write was lost.
func (u *Unit) takeDeferred() bool { return u.deferred.Load() && u.deferred.Swap(false) }
