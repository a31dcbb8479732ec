package isertarget

import (
	"encoding/binary"

	"iserblk/session/scsi"
)

// Vital product data pages (SPC-4 7.8, SBC-3 6.6).
const (
	pageSupported    = 0x00
	pageSerial       = 0x80
	pageDeviceID     = 0x83
	pageBlockLimits  = 0xb0
	pageBlockDevice  = 0xb1
	pageProvisioning = 0xb2
)

// inquiry answers INQUIRY, also for a unit that does not exist (SPC-4 6.6).
func (t *Target) inquiry(k *task, d *Disk) result {
	cdb := k.cmd.CDB
	alloc := int(binary.BigEndian.Uint16(cdb[3:]))
	if cdb[1]&1 == 0 {
		return good(limit(t.standardInquiry(d), alloc))
	}
	if d == nil {
		return badCDB()
	}
	body, ok := t.page(k, d, cdb[2])
	if !ok {
		return badCDB()
	}
	b := append([]byte{0, cdb[2], byte(len(body) >> 8), byte(len(body))}, body...)
	return good(limit(b, alloc))
}

func (t *Target) standardInquiry(d *Disk) []byte {
	const noUnit, cmdQue = 0x7f, 0x02
	b := make([]byte, 96)
	b[2], b[3], b[4], b[7] = 6, 2, byte(len(b)-5), cmdQue
	if d == nil {
		b[0] = noUnit
	}
	if t.opt.ALUA {
		b[5] = 1 << 4
	}
	copy(b[8:], "        ")
	copy(b[8:16], t.opt.Vendor)
	copy(b[16:], "MEMORY DISK     ")
	copy(b[32:], "0001")
	return b
}

func (t *Target) page(k *task, d *Disk, page byte) ([]byte, bool) {
	_, serial := d.size()
	switch page {
	case pageSupported:
		return []byte{pageSupported, pageSerial, pageDeviceID, pageBlockLimits, pageBlockDevice, pageProvisioning}, true
	case pageSerial:
		return []byte(serial), true
	case pageDeviceID:
		return t.designators(k, serial), true
	case pageBlockLimits:
		return d.blockLimits(), true
	case pageBlockDevice:
		b := make([]byte, 60)
		if !d.Rotational {
			binary.BigEndian.PutUint16(b, scsi.RotationNone)
		}
		return b, true
	case pageProvisioning:
		return d.provisioning(), true
	}
	return nil, false
}

// designators name the unit, the port it was asked through, and the port's group.
func (t *Target) designators(k *task, serial string) []byte {
	naa := make([]byte, 16)
	naa[0] = 0x60
	copy(naa[1:], serial)
	p := k.conn.portal
	group, port := []byte{0, 0, byte(p.group >> 8), byte(p.group)}, byte(p.number)
	var b []byte
	b = appendDesignator(b, scsi.AssocLU, scsi.DesignatorNAA, scsi.CodeBinary, naa)
	b = appendDesignator(b, scsi.AssocLU, scsi.DesignatorT10, scsi.CodeASCII, []byte("ISERTEST"+serial))
	b = appendDesignator(b, scsi.AssocPort, scsi.DesignatorRelativePort, scsi.CodeBinary, []byte{0, 0, 0, port})
	return appendDesignator(b, scsi.AssocPort, scsi.DesignatorPortGroup, scsi.CodeBinary, group)
}

func appendDesignator(b []byte, a scsi.Association, t scsi.DesignatorType, c scsi.CodeSet, id []byte) []byte {
	const iscsi, piv = 0x50, 0x80
	first, second := byte(c), byte(a)<<4|byte(t)
	if a == scsi.AssocPort {
		first, second = first|iscsi, second|piv
	}
	return append(append(b, first, second, 0, byte(len(id))), id...)
}

func (d *Disk) blockLimits() []byte {
	const unlimited, granularity = 0xffffffff, 1
	b := make([]byte, 60)
	binary.BigEndian.PutUint32(b[4:], d.MaxTransfer)
	binary.BigEndian.PutUint32(b[8:], d.OptimalTransfer)
	if !d.NoUnmap {
		binary.BigEndian.PutUint32(b[16:], unlimited)
		binary.BigEndian.PutUint32(b[20:], maxUnmapDescriptors)
		binary.BigEndian.PutUint32(b[24:], granularity)
	}
	if !d.NoWriteSame {
		blocks, _ := d.size()
		binary.BigEndian.PutUint64(b[32:], blocks)
	}
	return b
}

// maxUnmapDescriptors in one UNMAP: few enough that a test meets the limit.
const maxUnmapDescriptors = 4

func (d *Disk) provisioning() []byte {
	const lbpu, lbpws, lbpws10, lbprz, thin = 0x80, 0x40, 0x20, 0x04, 2
	if d.NoUnmap {
		return make([]byte, 4)
	}
	flags := byte(lbpu | lbprz)
	if !d.NoWriteSame {
		flags |= lbpws | lbpws10
	}
	return []byte{0, flags, thin, 0}
}
