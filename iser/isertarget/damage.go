package isertarget

import "iserblk/session/scsi"

// SetBad makes blocks unreadable and unwritable: MEDIUM ERROR with the first bad block's address.
func (d *Disk) SetBad(lba uint64, blocks uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bad = append(d.bad, scsi.Extent{LBA: lba, Blocks: blocks})
}

// SetLying makes a block read as something other than what it holds, without an error: what only a checksum of the
// reader's own finds.
func (d *Disk) SetLying(lba uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lies == nil {
		d.lies = make(map[uint64]bool)
	}
	d.lies[lba] = true
}

// Heal takes back SetBad and SetLying.
func (d *Disk) Heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bad, d.lies = nil, nil
}

// firstBad finds the first bad block among those given.
func (d *Disk) firstBad(lba, blocks uint64) (uint64, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	first, found := uint64(0), false
	for _, e := range d.bad {
		at := max(lba, e.LBA)
		if at < lba+blocks && at < e.LBA+uint64(e.Blocks) && (!found || at < first) {
			first, found = at, true
		}
	}
	return first, found
}

// lie changes what was read of lying blocks.
func (d *Disk) lie(lba uint64, b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.lies) == 0 {
		return
	}
	for off := 0; off < len(b); off += int(d.BlockSize) {
		if d.lies[lba+uint64(off/int(d.BlockSize))] {
			b[off] ^= 0xff
		}
	}
}

// mediumError is what a command meets at a bad block (SPC-4 4.5; the address is in the INFORMATION field).
func mediumError(asc uint8, lba uint64) result {
	return result{status: scsi.StatusCheckCondition, sense: &scsi.Sense{
		Key: scsi.KeyMediumError, ASC: asc, Info: lba, InfoValid: true,
	}}
}

const (
	ascWriteError = 0x0c
	ascReadError  = 0x11
)
