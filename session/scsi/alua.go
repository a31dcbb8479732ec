package scsi

import (
	"encoding/binary"
	"fmt"
)

// AccessState is an asymmetric access state of a target port group (SPC-4).
type AccessState uint8

// Asymmetric access states.
const (
	AccessOptimized     AccessState = 0x0
	AccessNonOptimized  AccessState = 0x1
	AccessStandby       AccessState = 0x2
	AccessUnavailable   AccessState = 0x3
	AccessLBADependent  AccessState = 0x4
	AccessOffline       AccessState = 0xe
	AccessTransitioning AccessState = 0xf
)

// String returns the name of the state as Linux tools print it.
func (a AccessState) String() string {
	switch a {
	case AccessOptimized:
		return "active/optimized"
	case AccessNonOptimized:
		return "active/non-optimized"
	case AccessStandby:
		return "standby"
	case AccessUnavailable:
		return "unavailable"
	case AccessLBADependent:
		return "lba-dependent"
	case AccessOffline:
		return "offline"
	case AccessTransitioning:
		return "transitioning"
	}
	return fmt.Sprintf("access state 0x%x", uint8(a))
}

// PortGroup is a target port group descriptor (SPC-4).
type PortGroup struct {
	Preferred bool // PREF
	State     AccessState
	ID        uint16
	Ports     []uint16 // relative target port identifiers
}

const (
	groupListHeaderLen = 4
	groupHeaderLen     = 8
	groupPortLen       = 4
	groupPreferred     = 0x80
	accessStateMask    = 0x0f
	groupName          = "target port groups"
)

// ParsePortGroups reads REPORT TARGET PORT GROUPS data in the length-only
// header format.
func ParsePortGroups(b []byte) ([]PortGroup, error) {
	if len(b) < groupListHeaderLen {
		return nil, tooShort(groupName, len(b), groupListHeaderLen)
	}
	n, list := uint64(binary.BigEndian.Uint32(b)), b[groupListHeaderLen:]
	if n > uint64(len(list)) {
		return nil, lie(groupName, "claims %d bytes, but %d arrived", n, len(list))
	}
	list = list[:n]
	var groups []PortGroup
	for len(list) > 0 {
		g, size, err := parsePortGroup(list)
		if err != nil {
			return nil, err
		}
		groups, list = append(groups, g), list[size:]
	}
	return groups, nil
}

func parsePortGroup(b []byte) (PortGroup, int, error) {
	if len(b) < groupHeaderLen {
		return PortGroup{}, 0, tooShort(groupName, len(b), groupHeaderLen)
	}
	ports := int(b[7])
	size := groupHeaderLen + ports*groupPortLen
	if size > len(b) {
		return PortGroup{}, 0, lie(groupName, "group of %d ports in %d bytes", ports, len(b))
	}
	g := PortGroup{
		Preferred: b[0]&groupPreferred != 0,
		State:     AccessState(b[0] & accessStateMask),
		ID:        binary.BigEndian.Uint16(b[2:]),
		Ports:     make([]uint16, ports),
	}
	for i := range g.Ports {
		g.Ports[i] = binary.BigEndian.Uint16(b[groupHeaderLen+i*groupPortLen+2:])
	}
	return g, size, nil
}

// PortGroupOf returns the target port group and the relative target port of
// the port that answered, from its designators (SPC-4).
func PortGroupOf(list []Designator) (group, port uint16, ok bool) {
	const need = 4
	var haveGroup, havePort bool
	for _, d := range list {
		if d.Association != AssocPort || len(d.ID) < need {
			continue
		}
		switch d.Type {
		case DesignatorPortGroup:
			group, haveGroup = binary.BigEndian.Uint16(d.ID[2:]), true
		case DesignatorRelativePort:
			port, havePort = binary.BigEndian.Uint16(d.ID[2:]), true
		}
	}
	return group, port, haveGroup && havePort
}
