package scsi

import (
	"encoding/binary"
	"math"
)

// Lengths of READ CAPACITY parameter data, in bytes.
const (
	Capacity10Len  = 8
	Capacity16Len  = 32
	capacity16Need = 16 // up to the last field that is defined
)

// MinBlockSize and MaxBlockSize bound the logical block size a parser takes,
// in bytes.
const (
	MinBlockSize = 512
	MaxBlockSize = 1 << 20
)

// Capacity is the size and the geometry of a unit.
type Capacity struct {
	Blocks    uint64 // logical blocks
	BlockSize uint32 // bytes, a power of two
	// PhysicalExponent: 2^n logical blocks make a physical one.
	PhysicalExponent uint8
	LowestAligned    uint16 // first LBA that starts a physical block
	Thin             bool   // LBPME: blocks may be unmapped
	ReadZeroes       bool   // LBPRZ: unmapped blocks read as zeroes
	// ProtectionType is 0 without T10 protection information, else 1 to 3.
	ProtectionType uint8
}

// Bytes returns the size in bytes, which always fits an int64.
func (c Capacity) Bytes() int64 { return int64(c.Blocks) * int64(c.BlockSize) }

// PhysicalBlockSize returns the size of a physical block in bytes.
func (c Capacity) PhysicalBlockSize() uint32 { return c.BlockSize << c.PhysicalExponent }

// ParseCapacity10 reads READ CAPACITY (10) data (SBC-3). It returns
// ErrUseReadCapacity16 for a unit of more than 2^32-1 blocks.
func ParseCapacity10(b []byte) (Capacity, error) {
	const name = "read capacity (10) data"
	if len(b) < Capacity10Len {
		return Capacity{}, tooShort(name, len(b), Capacity10Len)
	}
	last := binary.BigEndian.Uint32(b)
	if last == math.MaxUint32 {
		return Capacity{}, ErrUseReadCapacity16
	}
	return newCapacity(name, uint64(last), binary.BigEndian.Uint32(b[4:]))
}

// ParseCapacity16 reads READ CAPACITY (16) data (SBC-3).
func ParseCapacity16(b []byte) (Capacity, error) {
	const (
		name      = "read capacity (16) data"
		protEn    = 0x01
		typeShift = 1
		typeMask  = 0x07
		expMask   = 0x0f
		lbpme     = 0x8000
		lbprz     = 0x4000
		alignMask = 0x3fff
	)
	if len(b) < capacity16Need {
		return Capacity{}, tooShort(name, len(b), capacity16Need)
	}
	c, err := newCapacity(name, binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:]))
	if err != nil {
		return Capacity{}, err
	}
	tail := binary.BigEndian.Uint16(b[14:])
	c.Thin, c.ReadZeroes, c.LowestAligned = tail&lbpme != 0, tail&lbprz != 0, tail&alignMask
	c.PhysicalExponent = b[13] & expMask
	if uint64(c.BlockSize)<<c.PhysicalExponent > math.MaxUint32 {
		return Capacity{}, lie(name, "physical block of %d bytes times 2^%d", c.BlockSize, c.PhysicalExponent)
	}
	if b[12]&protEn != 0 {
		c.ProtectionType = b[12]>>typeShift&typeMask + 1
	}
	return c, nil
}

func newCapacity(name string, last uint64, blockSize uint32) (Capacity, error) {
	if blockSize < MinBlockSize || blockSize > MaxBlockSize || blockSize&(blockSize-1) != 0 {
		return Capacity{}, lie(name, "block size of %d bytes is no power of two from %d to %d",
			blockSize, MinBlockSize, MaxBlockSize)
	}
	if last >= math.MaxInt64/uint64(blockSize) {
		return Capacity{}, lie(name, "last lba %d times %d bytes is more than 2^63 bytes", last, blockSize)
	}
	return Capacity{Blocks: last + 1, BlockSize: blockSize}, nil
}
