package scsi

import (
	"encoding/hex"
	"strings"
)

// Association says what a designator names (SPC-4).
type Association uint8

// Associations.
const (
	AssocLU     Association = 0
	AssocPort   Association = 1
	AssocTarget Association = 2
)

// DesignatorType is the naming scheme of a designator (SPC-4).
type DesignatorType uint8

// Designator types.
const (
	DesignatorVendor       DesignatorType = 0
	DesignatorT10          DesignatorType = 1
	DesignatorEUI64        DesignatorType = 2
	DesignatorNAA          DesignatorType = 3
	DesignatorRelativePort DesignatorType = 4
	DesignatorPortGroup    DesignatorType = 5
	DesignatorLUGroup      DesignatorType = 6
	DesignatorMD5          DesignatorType = 7
	DesignatorSCSIName     DesignatorType = 8
)

// CodeSet says how the bytes of a designator are to be read (SPC-4).
type CodeSet uint8

// Code sets.
const (
	CodeBinary CodeSet = 1
	CodeASCII  CodeSet = 2
	CodeUTF8   CodeSet = 3
)

// Designator is one name out of VPD page 0x83 (SPC-4).
type Designator struct {
	Association Association
	Type        DesignatorType
	CodeSet     CodeSet
	ID          []byte
}

const (
	designatorHeaderLen = 4
	codeSetMask         = 0x0f
	associationShift    = 4
	associationMask     = 0x03
	designatorTypeMask  = 0x0f
)

// ParseDeviceID reads VPD page 0x83: every designator in device order. Their
// IDs alias b.
func ParseDeviceID(b []byte) ([]Designator, error) {
	p, err := vpdBody(b, VPDDeviceID, 0)
	if err != nil {
		return nil, err
	}
	var list []Designator
	for len(p) > 0 {
		if len(p) < designatorHeaderLen {
			return nil, lie(vpdNames[VPDDeviceID], "%d stray bytes behind the last designator", len(p))
		}
		end := designatorHeaderLen + int(p[3])
		if end > len(p) {
			return nil, lie(vpdNames[VPDDeviceID], "designator of %d bytes, but %d are left",
				end-designatorHeaderLen, len(p)-designatorHeaderLen)
		}
		list = append(list, Designator{
			Association: Association(p[1] >> associationShift & associationMask),
			Type:        DesignatorType(p[1] & designatorTypeMask),
			CodeSet:     CodeSet(p[0] & codeSetMask),
			ID:          p[designatorHeaderLen:end:end],
		})
		p = p[end:]
	}
	return list, nil
}

// LUDesignator picks the designator that best names the logical unit: NAA,
// then EUI-64, SCSI name string and T10 vendor ID. Within NAA the longer,
// registered extended form wins, and a locally assigned one comes last.
// It returns false if the device names the unit in none of these ways.
func LUDesignator(list []Designator) (Designator, bool) {
	best, bestRank := Designator{}, 0
	for _, d := range list {
		if rank := d.rank(); rank > bestRank {
			best, bestRank = d, rank
		}
	}
	return best, bestRank > 0
}

// NAA formats, the top four bits of an NAA designator (SPC-4).
const (
	naaLocal    = 0x3
	naaExtended = 0x6
	naaShift    = 4
)

func (d Designator) rank() int {
	const t10, name, eui, local, naa, extended = 1, 2, 3, 4, 5, 6
	if d.Association != AssocLU || len(d.ID) == 0 {
		return 0
	}
	switch d.Type {
	case DesignatorNAA:
		switch d.ID[0] >> naaShift {
		case naaLocal:
			return local
		case naaExtended:
			return extended
		}
		return naa
	case DesignatorEUI64:
		return eui
	case DesignatorSCSIName:
		return name
	case DesignatorT10:
		return t10
	}
	return 0
}

// WWN returns an NAA or EUI-64 name as lsblk prints it, "0x" and hex digits,
// and "" for the other types.
func (d Designator) WWN() string {
	if d.Type != DesignatorNAA && d.Type != DesignatorEUI64 {
		return ""
	}
	return "0x" + hex.EncodeToString(d.ID)
}

// String returns the name with the prefix of its scheme: naa., eui. or t10.;
// a SCSI name string has its own. Text is trimmed and made printable.
func (d Designator) String() string {
	switch d.Type {
	case DesignatorNAA:
		return "naa." + hex.EncodeToString(d.ID)
	case DesignatorEUI64:
		return "eui." + hex.EncodeToString(d.ID)
	case DesignatorSCSIName:
		return asciiField(d.ID)
	case DesignatorT10:
		return "t10." + strings.Join(strings.Fields(d.text()), "_")
	}
	return d.text()
}

func (d Designator) text() string {
	if d.CodeSet == CodeBinary {
		return hex.EncodeToString(d.ID)
	}
	return asciiField(d.ID)
}

// Equal reports whether both are the same name. The association counts too.
func (d Designator) Equal(o Designator) bool {
	return d.Association == o.Association && d.Type == o.Type &&
		d.CodeSet == o.CodeSet && string(d.ID) == string(o.ID)
}
