package isertarget

import (
	"encoding/binary"

	"iserblk/session/scsi"
)

// result is what a command led to.
type result struct {
	status scsi.Status
	sense  *scsi.Sense
	data   []byte // for the initiator
	wrote  int    // bytes taken from the initiator
}

// Operation codes (SPC-4, SBC-3).
const (
	opTestUnitReady  = 0x00
	opRequestSense   = 0x03
	opStartStopUnit  = 0x1b
	opInquiry        = 0x12
	opModeSense6     = 0x1a
	opReadCapacity10 = 0x25
	opRead10         = 0x28
	opWrite10        = 0x2a
	opSyncCache10    = 0x35
	opWriteSame10    = 0x41
	opUnmap          = 0x42
	opModeSense10    = 0x5a
	opReserveIn      = 0x5e
	opReserveOut     = 0x5f
	opRead16         = 0x88
	opWrite16        = 0x8a
	opSyncCache16    = 0x91
	opWriteSame16    = 0x93
	opServiceIn16    = 0x9e
	opReportLUNs     = 0xa0
	opMaintenanceIn  = 0xa3
	opRead12         = 0xa8
	opWrite12        = 0xaa
	saReadCapacity16 = 0x10
	saLBAStatus      = 0x12
	saReportGroups   = 0x0a
)

func good(data []byte) result { return result{data: data} }

func check(key scsi.SenseKey, asc, ascq uint8) result {
	return result{
		status: scsi.StatusCheckCondition,
		sense:  &scsi.Sense{Key: key, ASC: asc, ASCQ: ascq},
	}
}

func badCDB() result     { return check(scsi.KeyIllegalRequest, 0x24, 0x00) }
func badOpcode() result  { return check(scsi.KeyIllegalRequest, 0x20, 0x00) }
func outOfRange() result { return check(scsi.KeyIllegalRequest, 0x21, 0x00) }

// execute carries the command out; false means that its connection is gone.
func (k *task) execute() (result, bool) {
	t, op := k.conn.t, k.cmd.Op()
	if op == opReportLUNs {
		return t.reportLUNs(k.cmd), true
	}
	d := t.disk(k.cmd.LUN)
	if op == opInquiry {
		return t.inquiry(k, d), true
	}
	if d == nil {
		return check(scsi.KeyIllegalRequest, 0x25, 0x00), true
	}
	if sense, ok := t.takeAttention(k.sess, d.Number); ok && op != opRequestSense {
		return result{status: scsi.StatusCheckCondition, sense: &sense}, true
	}
	if r, refused := k.accessRefused(); refused {
		return r, true
	}
	if d.conflicts(k) {
		return result{status: scsi.StatusReservationConflict}, true
	}
	return k.executeOn(d)
}

// accessRefused applies the access state of the port group (SPC-4 5.16.2.4).
func (k *task) accessRefused() (result, bool) {
	switch op := k.cmd.Op(); op {
	case opRequestSense, opMaintenanceIn:
		return result{}, false
	}
	switch k.conn.t.accessOf(k.conn.portal.group) {
	case scsi.AccessStandby:
		return check(scsi.KeyNotReady, 0x04, 0x0b), true
	case scsi.AccessUnavailable:
		return check(scsi.KeyNotReady, 0x04, 0x0c), true
	case scsi.AccessTransitioning:
		return check(scsi.KeyNotReady, 0x04, 0x0a), true
	}
	return result{}, false
}

func (k *task) executeOn(d *Disk) (result, bool) {
	switch k.cmd.Op() {
	case opTestUnitReady:
		return good(nil), true
	case opRequestSense:
		return good(limit(scsi.AppendFixedSense(nil, scsi.Sense{}), int(k.cmd.CDB[4]))), true
	case opStartStopUnit:
		return good(nil), true
	case opReadCapacity10:
		return d.readCapacity10(), true
	case opServiceIn16:
		return d.serviceIn(k.cmd), true
	case opModeSense6:
		return d.modeSense6(k.cmd), true
	case opModeSense10:
		return d.modeSense10(k.cmd), true
	case opMaintenanceIn:
		return k.conn.t.reportGroups(k.cmd), true
	case opRead10, opRead12, opRead16:
		return k.readBlocks(d), true
	case opSyncCache10, opSyncCache16:
		return k.syncCache(d), true
	case opReserveIn:
		return d.reserveIn(k.cmd), true
	case opReserveOut:
		return k.reserveOut(d)
	}
	return k.executeWrite(d)
}

func (k *task) executeWrite(d *Disk) (result, bool) {
	switch op := k.cmd.Op(); {
	case op != opWrite10 && op != opWrite12 && op != opWrite16 && op != opUnmap &&
		op != opWriteSame10 && op != opWriteSame16:
		return badOpcode(), true
	case d.ReadOnly:
		return check(scsi.KeyDataProtect, 0x27, 0x00), true
	case !k.pull(int(k.cmd.EDTL)):
		return result{}, false
	case op == opUnmap:
		return k.unmap(d), true
	case op == opWriteSame10, op == opWriteSame16:
		return k.writeSame(d), true
	}
	return k.writeBlocks(d), true
}

// extent is where a READ or WRITE goes, in blocks.
func (c Command) extent() (lba, blocks uint64) {
	cdb := c.CDB[:]
	switch {
	case cdb[0] == opRead12 || cdb[0] == opWrite12:
		return uint64(binary.BigEndian.Uint32(cdb[2:])), uint64(binary.BigEndian.Uint32(cdb[6:]))
	case cdb[0] >= opRead16:
		return binary.BigEndian.Uint64(cdb[2:]), uint64(binary.BigEndian.Uint32(cdb[10:]))
	}
	return uint64(binary.BigEndian.Uint32(cdb[2:])), uint64(binary.BigEndian.Uint16(cdb[7:]))
}

func limit(b []byte, n int) []byte { return b[:min(len(b), n)] }
