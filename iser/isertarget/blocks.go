package isertarget

import (
	"bytes"
	"encoding/binary"

	"iserblk/session/scsi"
)

// checkExtent refuses what is too long or outside the unit.
func (d *Disk) checkExtent(lba, blocks uint64) (result, bool) {
	switch {
	case !d.inRange(lba, blocks):
		return outOfRange(), false
	case d.MaxTransfer != 0 && blocks > uint64(d.MaxTransfer):
		return badCDB(), false
	}
	return result{}, true
}

func (k *task) readBlocks(d *Disk) result {
	lba, blocks := k.cmd.extent()
	if r, ok := d.checkExtent(lba, blocks); !ok {
		return r
	}
	return good(d.read(lba, blocks))
}

func (k *task) writeBlocks(d *Disk) result {
	lba, blocks := k.cmd.extent()
	if r, ok := d.checkExtent(lba, blocks); !ok {
		return r
	}
	want := int(blocks * uint64(d.BlockSize))
	if len(k.data) < want {
		k.conn.t.violate("write of %d bytes came with %d", want, len(k.data))
		return badCDB()
	}
	d.write(lba, k.data[:want], k.cmd.FUA() && !d.NoFUA)
	return result{wrote: want}
}

func (k *task) syncCache(d *Disk) result {
	lba, blocks := k.cmd.extent()
	if !d.inRange(lba, blocks) {
		return outOfRange()
	}
	d.sync(lba, blocks)
	return good(nil)
}

// unmap takes the parameter list of SBC-3 5.28.2. Unmapped blocks read as zeroes.
func (k *task) unmap(d *Disk) result {
	if d.NoUnmap {
		return badOpcode()
	}
	const header, descriptor = 8, 16
	if len(k.data) < header {
		return badCDB()
	}
	list := k.data[header:]
	if n := int(binary.BigEndian.Uint16(k.data[2:])); n > len(list) || n%descriptor != 0 {
		return check(scsi.KeyIllegalRequest, 0x26, 0x00)
	} else {
		list = list[:n]
	}
	for ; len(list) > 0; list = list[descriptor:] {
		lba, blocks := binary.BigEndian.Uint64(list), uint64(binary.BigEndian.Uint32(list[8:]))
		if !d.inRange(lba, blocks) {
			return outOfRange()
		}
		d.write(lba, make([]byte, blocks*uint64(d.BlockSize)), false)
	}
	return result{wrote: len(k.data)}
}

// writeSame repeats one block (SBC-3 5.46). Zero blocks means all that follow.
func (k *task) writeSame(d *Disk) result {
	const unmapBit, noDataBit = 0x08, 0x01
	flags := k.cmd.CDB[1]
	noData := k.cmd.Op() == opWriteSame16 && flags&noDataBit != 0
	if d.NoWriteSame || d.NoUnmap && flags&unmapBit != 0 {
		return badOpcode()
	}
	lba, blocks := k.cmd.extent()
	if !d.inRange(lba, blocks) {
		return outOfRange()
	}
	if blocks == 0 {
		total, _ := d.size()
		blocks = total - lba
	}
	pattern, wrote := make([]byte, d.BlockSize), 0
	if !noData {
		if len(k.data) < len(pattern) {
			return badCDB()
		}
		wrote = copy(pattern, k.data)
	}
	d.write(lba, bytes.Repeat(pattern, int(blocks)), false)
	return result{wrote: wrote}
}
