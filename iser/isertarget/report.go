package isertarget

import (
	"encoding/binary"
	"math"
	"slices"

	"iserblk/session/scsi"
)

// reportLUNs answers REPORT LUNS (SPC-4 6.33).
func (t *Target) reportLUNs(c Command) result {
	t.mu.Lock()
	disks := make([]*Disk, 0, len(t.disks))
	for _, d := range t.disks {
		disks = append(disks, d)
	}
	t.mu.Unlock()
	slices.SortFunc(disks, func(a, b *Disk) int { return a.Number - b.Number })
	const header, entry = 8, 8
	b := make([]byte, header, header+len(disks)*entry)
	binary.BigEndian.PutUint32(b, uint32(len(disks)*entry))
	for _, d := range disks {
		l := d.lun()
		b = append(b, l[:]...)
	}
	return good(limit(b, int(binary.BigEndian.Uint32(c.CDB[6:]))))
}

// reportGroups answers REPORT TARGET PORT GROUPS (SPC-4 6.37).
func (t *Target) reportGroups(c Command) result {
	if !t.opt.ALUA || c.CDB[1]&0x1f != saReportGroups {
		return badCDB()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	b := make([]byte, 4)
	for _, g := range t.groups() {
		b = t.appendGroup(b, g)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return good(limit(b, int(binary.BigEndian.Uint32(c.CDB[6:]))))
}

// groups are the port groups in ascending order. t.mu is held.
func (t *Target) groups() []uint16 {
	var list []uint16
	for _, p := range t.portals {
		list = append(list, p.group)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// appendGroup appends one descriptor. t.mu is held.
func (t *Target) appendGroup(b []byte, group uint16) []byte {
	const allStates = 0x8f // transitioning, unavailable, standby, non-optimized, optimized
	start := len(b)
	b = append(b, byte(t.access[group]), allStates, byte(group>>8), byte(group), 0, 0, 0, 0)
	for _, p := range t.portals {
		if p.group == group {
			b = append(b, 0, 0, 0, byte(p.number))
			b[start+7]++
		}
	}
	return b
}

func (d *Disk) readCapacity10() result {
	blocks, _ := d.size()
	b := make([]byte, 8)
	binary.BigEndian.PutUint32(b, uint32(min(blocks-1, math.MaxUint32)))
	binary.BigEndian.PutUint32(b[4:], d.BlockSize)
	return good(b)
}

// serviceIn answers READ CAPACITY (16) (SBC-3 5.16) and GET LBA STATUS.
func (d *Disk) serviceIn(c Command) result {
	switch c.CDB[1] & 0x1f {
	case saReadCapacity16:
		return d.readCapacity16(c)
	case saLBAStatus:
		return d.lbaStatus(c)
	}
	return badCDB()
}

func (d *Disk) readCapacity16(c Command) result {
	const lbpme, lbprz = 0x80, 0x40
	blocks, _ := d.size()
	b := make([]byte, 32)
	binary.BigEndian.PutUint64(b, blocks-1)
	binary.BigEndian.PutUint32(b[8:], d.BlockSize)
	b[13] = d.PhysicalExponent
	if !d.NoUnmap {
		b[14] = lbpme | lbprz
	}
	return good(limit(b, int(binary.BigEndian.Uint32(c.CDB[10:]))))
}

// cachingPage is mode page 0x08 (SBC-3 6.5.5).
func (d *Disk) cachingPage() []byte {
	const wce, length = 0x04, 0x12
	b := make([]byte, length+2)
	b[0], b[1] = scsi.PageCaching, length
	if d.WriteCache {
		b[2] = wce
	}
	return b
}

// deviceParameter is the device-specific byte of the mode parameter header (SBC-3 6.5.1).
func (d *Disk) deviceParameter() byte {
	const writeProtect, dpofua = 0x80, 0x10
	var b byte
	if d.ReadOnly {
		b |= writeProtect
	}
	if !d.NoFUA {
		b |= dpofua
	}
	return b
}

func (d *Disk) modePages(page byte) ([]byte, bool) {
	const all = 0x3f
	if p := page & all; p != all && p != scsi.PageCaching {
		return nil, false
	}
	return d.cachingPage(), true
}

func (d *Disk) modeSense6(c Command) result {
	pages, ok := d.modePages(c.CDB[2])
	if !ok {
		return badCDB()
	}
	b := append([]byte{byte(3 + len(pages)), 0, d.deviceParameter(), 0}, pages...)
	return good(limit(b, int(c.CDB[4])))
}

func (d *Disk) modeSense10(c Command) result {
	pages, ok := d.modePages(c.CDB[2])
	if !ok {
		return badCDB()
	}
	b := append([]byte{0, byte(6 + len(pages)), 0, d.deviceParameter(), 0, 0, 0, 0}, pages...)
	return good(limit(b, int(binary.BigEndian.Uint16(c.CDB[7:]))))
}
