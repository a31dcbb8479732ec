package isertarget

import (
	"encoding/binary"

	"iserblk/session/scsi"
)

// checkExtent refuses what is too long, outside the unit or damaged.
func (d *Disk) checkExtent(lba, blocks uint64, ascDamaged uint8) (result, bool) {
	switch {
	case !d.inRange(lba, blocks):
		return outOfRange(), false
	case d.MaxTransfer != 0 && blocks > uint64(d.MaxTransfer):
		return badCDB(), false
	}
	if at, bad := d.firstBad(lba, blocks); bad {
		return mediumError(ascDamaged, at), false
	}
	return result{}, true
}

func (k *task) readBlocks(d *Disk) result {
	lba, blocks := k.cmd.extent()
	if r, ok := d.checkExtent(lba, blocks, ascReadError); !ok {
		return r
	}
	k.buf = takeBuffer(int(blocks) * int(d.BlockSize))
	if d.read(lba, k.buf) != nil {
		return mediumError(ascReadError, lba)
	}
	return good(k.buf)
}

func (k *task) writeBlocks(d *Disk) result {
	lba, blocks := k.cmd.extent()
	if r, ok := d.checkExtent(lba, blocks, ascWriteError); !ok {
		return r
	}
	want := int(blocks) * int(d.BlockSize)
	if len(k.data) < want {
		k.conn.t.violate("write of %d bytes came with %d", want, len(k.data))
		return badCDB()
	}
	if d.write(lba, k.data[:want], k.cmd.FUA() && !d.NoFUA) != nil {
		return mediumError(ascWriteError, lba)
	}
	return result{wrote: want}
}

func (k *task) syncCache(d *Disk) result {
	lba, blocks := k.cmd.extent()
	if !d.inRange(lba, blocks) {
		return outOfRange()
	}
	if d.sync(lba, blocks) != nil {
		return mediumError(ascWriteError, lba)
	}
	return good(nil)
}

// unmap takes the parameter list of SBC-3 5.28.2. Unmapped blocks read as zeroes.
func (k *task) unmap(d *Disk) result {
	if d.NoUnmap {
		return badOpcode()
	}
	const header, descriptor = scsi.UnmapHeaderLen, scsi.UnmapDescriptorLen
	if len(k.data) < header {
		return badCDB()
	}
	list := k.data[header:]
	n := int(binary.BigEndian.Uint16(k.data[2:]))
	if n > len(list) || n%descriptor != 0 {
		return check(scsi.KeyIllegalRequest, 0x26, 0x00)
	}
	zeroes := make([]byte, d.BlockSize)
	for list = list[:n]; len(list) > 0; list = list[descriptor:] {
		lba, blocks := binary.BigEndian.Uint64(list), uint64(binary.BigEndian.Uint32(list[8:]))
		if !d.inRange(lba, blocks) {
			return outOfRange()
		}
		if d.fill(lba, blocks, zeroes) != nil {
			return mediumError(ascWriteError, lba)
		}
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
	if d.fill(lba, blocks, pattern) != nil {
		return mediumError(ascWriteError, lba)
	}
	return result{wrote: wrote}
}

// lbaStatus answers GET LBA STATUS (SBC-3 5.6) with one run of blocks: unmapped are those that hold nothing but zeroes.
func (d *Disk) lbaStatus(c Command) result {
	const most, alike = 4 << 20, 4096 // bytes looked at, and at a time
	lba := binary.BigEndian.Uint64(c.CDB[2:])
	total, _ := d.size()
	if d.NoUnmap {
		return badCDB()
	}
	if lba >= total {
		return outOfRange()
	}
	step := max(1, alike/uint64(d.BlockSize))
	run, mapped := uint64(0), false
	for at := lba; at < total && at-lba < most/uint64(d.BlockSize); {
		n := min(step-at%step, total-at)
		m := !d.zeroes(at, n)
		if at == lba {
			mapped = m
		}
		if m != mapped {
			break
		}
		at, run = at+n, run+n
	}
	return good(limit(lbaStatusList(lba, run, mapped), int(binary.BigEndian.Uint32(c.CDB[10:]))))
}

// zeroes tells whether blocks hold nothing.
func (d *Disk) zeroes(lba, blocks uint64) bool {
	b := takeBuffer(int(blocks) * int(d.BlockSize))
	defer giveBuffer(b)
	if _, err := d.Medium.ReadAt(b, d.offset(lba)); err != nil {
		return false
	}
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

// lbaStatusList is the parameter data of GET LBA STATUS with one descriptor.
func lbaStatusList(lba, blocks uint64, mapped bool) []byte {
	const size, afterLength = 24, 4
	b := make([]byte, size)
	binary.BigEndian.PutUint32(b, size-afterLength)
	binary.BigEndian.PutUint64(b[8:], lba)
	binary.BigEndian.PutUint32(b[16:], uint32(blocks))
	if !mapped {
		b[20] = byte(scsi.LBADeallocated)
	}
	return b
}
