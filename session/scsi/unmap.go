package scsi

import "encoding/binary"

// Sizes in an UNMAP parameter list, in bytes (SBC-3).
const (
	UnmapHeaderLen     = 8
	UnmapDescriptorLen = 16
	// MaxUnmapExtents is how many extents fit the 16-bit list length.
	MaxUnmapExtents = (1<<16 - 1 - UnmapHeaderLen) / UnmapDescriptorLen
)

// Extent is a run of logical blocks.
type Extent struct {
	LBA    uint64
	Blocks uint32
}

// AppendUnmapList appends the parameter list of an UNMAP command for at most
// MaxUnmapExtents extents; the unit may take fewer (BlockLimits). It does not
// allocate if dst has room.
func AppendUnmapList(dst []byte, extents ...Extent) []byte {
	body := len(extents) * UnmapDescriptorLen
	dst = binary.BigEndian.AppendUint16(dst, uint16(body+UnmapHeaderLen-2))
	dst = binary.BigEndian.AppendUint16(dst, uint16(body))
	dst = binary.BigEndian.AppendUint32(dst, 0)
	for _, e := range extents {
		dst = binary.BigEndian.AppendUint64(dst, e.LBA)
		dst = binary.BigEndian.AppendUint32(dst, e.Blocks)
		dst = binary.BigEndian.AppendUint32(dst, 0)
	}
	return dst
}
