package scsi

import "encoding/binary"

// ProvisioningStatus says whether blocks have space on a thin unit (SBC-3).
type ProvisioningStatus uint8

// Provisioning statuses.
const (
	LBAMapped      ProvisioningStatus = 0
	LBADeallocated ProvisioningStatus = 1
	LBAAnchored    ProvisioningStatus = 2
)

// LBAStatus is one LBA status descriptor.
type LBAStatus struct {
	Extent
	Status ProvisioningStatus
}

const (
	lbaStatusHeaderLen = 8
	lbaStatusLen       = 16
	lbaStatusMask      = 0x0f
)

// ParseLBAStatus reads GET LBA STATUS data (SBC-3). A list cut short by
// the allocation length yields the descriptors that arrived whole.
func ParseLBAStatus(b []byte) ([]LBAStatus, error) {
	const name, lengthLen = "lba status data", 4
	if len(b) < lbaStatusHeaderLen {
		return nil, tooShort(name, len(b), lbaStatusHeaderLen)
	}
	claimed := uint64(binary.BigEndian.Uint32(b)) + lengthLen
	if claimed < lbaStatusHeaderLen {
		return nil, lie(name, "claims %d bytes, its header has %d", claimed, lbaStatusHeaderLen)
	}
	list := b[lbaStatusHeaderLen:min(claimed, uint64(len(b)))]
	out := make([]LBAStatus, 0, len(list)/lbaStatusLen)
	for ; len(list) >= lbaStatusLen; list = list[lbaStatusLen:] {
		out = append(out, LBAStatus{
			Extent: Extent{LBA: binary.BigEndian.Uint64(list), Blocks: binary.BigEndian.Uint32(list[8:])},
			Status: ProvisioningStatus(list[12] & lbaStatusMask),
		})
	}
	return out, nil
}
