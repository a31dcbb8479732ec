package ublk

import (
	"fmt"
	"math/bits"
	"os"
	"unsafe"

	"iserblk/internal/block"
)

// maxRange caps discards and write-zeroes: kernels before 6.11 cut 4 GiB and more off silently, and one request
// should not keep a target busy for minutes.
const maxRange = 1 << 30

// checkLimits refuses what the kernel would refuse or, worse, take.
func checkLimits(l *block.Limits) error {
	page := uint32(os.Getpagesize())
	switch {
	case l.BlockSize < 512 || l.BlockSize > page || !powerOfTwo(l.BlockSize):
		return fmt.Errorf("block size %d is not a power of two from 512 to %d", l.BlockSize, page)
	case l.PhysicalBlockSize < l.BlockSize || !powerOfTwo(l.PhysicalBlockSize):
		return fmt.Errorf("physical block size %d does not fit block size %d", l.PhysicalBlockSize, l.BlockSize)
	case l.Size == 0 || l.Size%uint64(l.BlockSize) != 0:
		return fmt.Errorf("size %d is not a multiple of the block size %d", l.Size, l.BlockSize)
	case l.MaxTransfer < page || l.MaxTransfer > maxIOBuf || l.MaxTransfer%page != 0:
		return fmt.Errorf("largest transfer %d is not a multiple of %d up to %d", l.MaxTransfer, page, maxIOBuf)
	case l.Depth == 0 || l.Depth > maxQueueDepth:
		return fmt.Errorf("queue depth %d is not from 1 to %d", l.Depth, maxQueueDepth)
	case l.MaxDiscard > 0 && l.DiscardGranularity == 0:
		return fmt.Errorf("discard without a granularity")
	}
	return nil
}

// newParams says in the kernel's words what the limits are.
func newParams(l *block.Limits) *params {
	p := &params{
		len:   uint32(unsafe.Sizeof(params{})),
		types: paramTypeBasic | paramTypeDMAAlign,
		basic: paramBasic{
			attrs:         attrs(l),
			logicalShift:  shift(l.BlockSize),
			physicalShift: shift(l.PhysicalBlockSize),
			ioMinShift:    shift(l.PhysicalBlockSize),
			ioOptShift:    shift(optimalIO(l)),
			maxSectors:    l.MaxTransfer >> sectorShift,
			devSectors:    l.Size >> sectorShift,
		},
		dma: paramDMAAlign{alignment: 3}, // the kernel copies: any address will do
	}
	if l.MaxDiscard > 0 || l.MaxWriteZeroes > 0 {
		p.types |= paramTypeDiscard
		p.discard = discardParams(l)
	}
	return p
}

// attrs is honest about caches: the kernel heeds FUA only together with a volatile cache, and sends no flush
// without one.
func attrs(l *block.Limits) uint32 {
	var a uint32
	if l.ReadOnly {
		a |= attrReadOnly
	}
	if l.Rotational {
		a |= attrRotational
	}
	if l.WriteCache {
		a |= attrVolatileCache
		if l.FUA {
			a |= attrFUA
		}
	}
	return a
}

func discardParams(l *block.Limits) paramDiscard {
	return paramDiscard{
		alignment:             l.DiscardAlignment,
		granularity:           max(l.DiscardGranularity, l.BlockSize), // must not be 0 even without discard
		maxDiscardSectors:     rangeSectors(l, l.MaxDiscard),
		maxWriteZeroesSectors: rangeSectors(l, l.MaxWriteZeroes),
		maxSegments:           1,
	}
}

// rangeSectors is a limit of discard or write-zeroes in sectors of whole blocks.
func rangeSectors(l *block.Limits, n uint64) uint32 {
	n = min(n, maxRange)
	return uint32((n - n%uint64(l.BlockSize)) >> sectorShift)
}

// optimalIO is the optimal size as the kernel can be told it, a power of two, else the physical block.
func optimalIO(l *block.Limits) uint32 {
	if l.OptimalIO > l.PhysicalBlockSize && powerOfTwo(l.OptimalIO) {
		return l.OptimalIO
	}
	return l.PhysicalBlockSize
}

func powerOfTwo(n uint32) bool { return n != 0 && n&(n-1) == 0 }

func shift(n uint32) uint8 { return uint8(bits.TrailingZeros32(n)) }
