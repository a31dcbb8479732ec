package session

import (
	"fmt"

	"iserblk/session/scsi"
)

// DeviceType is a peripheral device type (SPC-4 table 144).
type DeviceType uint8

// IsDisk reports that a unit of the type can serve as a block device. A host-managed zoned disk takes no random
// writes, so it cannot.
func (t DeviceType) IsDisk() bool { return t == scsi.TypeDisk || t == scsi.TypeSimplified }

// String is the type's name in lower case.
func (t DeviceType) String() string {
	switch t {
	case scsi.TypeDisk:
		return "disk"
	case scsi.TypeTape:
		return "tape"
	case scsi.TypeCDROM:
		return "cd-rom"
	case scsi.TypeController:
		return "controller"
	case scsi.TypeEnclosure:
		return "enclosure"
	case scsi.TypeSimplified:
		return "simplified disk"
	case scsi.TypeZonedDisk:
		return "zoned disk"
	}
	return fmt.Sprintf("device type %#02x", uint8(t))
}
