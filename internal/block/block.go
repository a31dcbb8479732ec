// Package block is the contract between a front end (ublk, nbd), which takes requests from a kernel or a
// client, and a logical unit, which carries them out. Neither side knows the other.
package block

import "syscall"

// Op is what a request asks for.
type Op uint8

// The operations of a block device.
const (
	Read Op = iota
	Write
	Flush       // every write completed before it was submitted is made durable
	Discard     // the range's content no longer matters
	WriteZeroes // the range reads as zeroes afterwards
	Allocation  // which parts of the range have space: the answer goes to Request.Extents
)

var opNames = [...]string{"read", "write", "flush", "discard", "write-zeroes", "allocation"}

// String is the operation's name.
func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return "unknown"
}

// Flags qualify a request.
type Flags uint8

const (
	// FUA: a Write is durable before it completes.
	FUA Flags = 1 << iota
	// NoUnmap: WriteZeroes must leave the blocks allocated.
	NoUnmap
)

// Request is one operation on its way. The front end owns it and fills it in; from Queue.Submit until Sink.Done
// it and its Data belong to the logical unit. Requests are preallocated, one a tag, and used again and again.
type Request struct {
	Op     Op
	Flags  Flags
	Tag    uint16 // unique among the requests in flight on one Queue, below Limits.Depth
	Offset uint64 // bytes, a multiple of the logical block size
	Length uint64 // bytes, a multiple of the logical block size; 0 for Flush
	// Data is what to write or where to read to: Length bytes in the arena for Read and Write. For Allocation it is
	// scratch memory of AllocationScratch bytes; else nil.
	Data []byte
	// Region is the region of the arena that Data lies in.
	Region uint32
	// Extents takes the answer to Allocation: consecutive parts of the range from Offset on, at least one and at most
	// as many as it has capacity for, so possibly of less than Length. It comes in with length 0.
	Extents []Extent
	// Sink is told when the request has completed.
	Sink Sink
}

// AllocationScratch is how many bytes of Request.Data an Allocation has for the unit's answer.
const AllocationScratch = 4096

// Extent is a part of a logical unit of which one thing can be said.
type Extent struct {
	Length uint64 // bytes, a multiple of the logical block size, not 0
	Hole   bool   // no space is allocated for it
	Zero   bool   // it reads as zeroes
}

// Sink takes finished requests back.
type Sink interface {
	// Done ends r: 0 means that all of it was done, anything else that none of it can be relied on. It is called
	// exactly once for each Submit, on the lane of the queue, possibly before Submit returns.
	Done(r *Request, errno syscall.Errno)
}

// Queue is one lane's way into a logical unit. All calls come from that lane.
type Queue interface {
	// Submit starts r. It never blocks and never fails: failure comes by Sink.Done.
	Submit(r *Request)
}

// Limits is what a front end tells its kernel or client about a logical unit. Sizes are in bytes.
type Limits struct {
	Size              uint64 // capacity, a multiple of BlockSize
	BlockSize         uint32 // logical block: 512 or 4096
	PhysicalBlockSize uint32 // at least BlockSize
	OptimalIO         uint32 // 0 when unknown
	MaxTransfer       uint32 // largest Read and Write
	Depth             uint16 // requests in flight on one queue, and the bound of Request.Tag
	ReadOnly          bool
	WriteCache        bool // completed writes may be volatile: Flush means something
	FUA               bool // Write with FUA is honoured; only with WriteCache
	Rotational        bool

	MaxDiscard         uint64 // largest Discard, 0 when not supported
	DiscardGranularity uint32 // non-zero when MaxDiscard is
	DiscardAlignment   uint32
	MaxWriteZeroes     uint64 // largest WriteZeroes, 0 when not supported
	// FastZeroes: WriteZeroes without NoUnmap gives space back instead of writing.
	FastZeroes bool
}
