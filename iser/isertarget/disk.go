package isertarget

import (
	"sync"

	"iserblk/session/scsi"
)

// DiskOptions describe a logical unit.
type DiskOptions struct {
	Blocks           uint64 // 0 means 2048
	BlockSize        uint32 // bytes; 0 means 512
	PhysicalExponent uint8  // physical blocks are BlockSize<<PhysicalExponent
	Serial           string // also makes the NAA designator; empty means one from the unit's number
	ReadOnly         bool
	WriteCache       bool // WCE: only FUA and SYNCHRONIZE CACHE make writes durable
	NoFUA            bool // DPOFUA is clear
	NoUnmap          bool // neither UNMAP nor WRITE SAME with UNMAP
	NoWriteSame      bool
	Rotational       bool
	MaxTransfer      uint32 // blocks in one command; 0 means no limit
	OptimalTransfer  uint32 // blocks
	// Medium holds the bytes, Blocks times BlockSize of them; nil means memory. It stays its owner's to close.
	Medium Medium
}

// Disk is a logical unit.
type Disk struct {
	DiskOptions
	Number int

	mu    sync.Mutex
	stale map[uint64][]byte // by LBA: what a power loss would bring back. Only with WriteCache
	bad   []scsi.Extent
	lies  map[uint64]bool // by LBA: blocks that read as something else
	held  reservations
}

func newDisk(n int, o DiskOptions) *Disk {
	if o.Blocks == 0 {
		o.Blocks = 2048
	}
	if o.BlockSize == 0 {
		o.BlockSize = 512
	}
	if o.Serial == "" {
		o.Serial = "isertest" + string(rune('a'+n%26))
	}
	if o.Medium == nil {
		o.Medium = newMemory(int64(o.Blocks) * int64(o.BlockSize))
	}
	return &Disk{DiskOptions: o, Number: n, stale: make(map[uint64][]byte)}
}

// ReadAt copies n bytes from byte off on: what an initiator would read. It is nil when the medium fails.
func (d *Disk) ReadAt(off, n int) []byte {
	b := make([]byte, n)
	if _, err := d.Medium.ReadAt(b, int64(off)); err != nil {
		return nil
	}
	return b
}

// WriteAt changes the content behind the initiator's back, durably.
func (d *Disk) WriteAt(off int, b []byte) { _, _ = d.Medium.WriteAt(b, int64(off)) }

// PowerLoss forgets every write that was not made durable.
func (d *Disk) PowerLoss() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for lba, old := range d.stale {
		_, _ = d.Medium.WriteAt(old, d.offset(lba))
	}
	clear(d.stale)
}

// Resize changes the capacity. The initiators must be told by a unit attention (2A/09): Target.Resize does both.
func (d *Disk) Resize(blocks uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.Medium.Truncate(d.offset(blocks))
	d.Blocks = blocks
}

// SetSerial makes the unit another one under the same number.
func (d *Disk) SetSerial(serial string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.Serial = serial
}

func (d *Disk) size() (blocks uint64, serial string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.Blocks, d.Serial
}

// offset is where a block begins, in bytes.
func (d *Disk) offset(lba uint64) int64 { return int64(lba) * int64(d.BlockSize) }

// inRange tells whether blocks exist.
func (d *Disk) inRange(lba, blocks uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return lba <= d.Blocks && blocks <= d.Blocks-lba
}

// read fills b from block lba on.
func (d *Disk) read(lba uint64, b []byte) error {
	if _, err := d.Medium.ReadAt(b, d.offset(lba)); err != nil {
		return err
	}
	d.lie(lba, b)
	return nil
}

// write stores whole blocks, durably or in the cache.
func (d *Disk) write(lba uint64, data []byte, durable bool) error {
	if d.WriteCache {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.keep(lba, len(data)/int(d.BlockSize), durable)
	}
	_, err := d.Medium.WriteAt(data, d.offset(lba))
	return err
}

// keep remembers what a power loss brings back of blocks about to be written. d.mu is held.
func (d *Disk) keep(lba uint64, blocks int, durable bool) {
	for n := lba; n < lba+uint64(blocks); n++ {
		if durable {
			delete(d.stale, n)
		} else if d.stale[n] == nil {
			old := make([]byte, d.BlockSize)
			_, _ = d.Medium.ReadAt(old, d.offset(n))
			d.stale[n] = old
		}
	}
}

// fill repeats one block's bytes over many blocks.
func (d *Disk) fill(lba, blocks uint64, pattern []byte) error {
	const most = 1 << 20
	some := min(blocks, most/uint64(d.BlockSize))
	chunk := takeBuffer(int(some) * len(pattern))
	defer giveBuffer(chunk)
	for n := range int(some) {
		copy(chunk[n*len(pattern):], pattern)
	}
	for ; blocks > 0; some = min(blocks, some) {
		if err := d.write(lba, chunk[:int(some)*len(pattern)], false); err != nil {
			return err
		}
		lba, blocks = lba+some, blocks-some
	}
	return nil
}

// sync makes blocks durable; none means all from lba on.
func (d *Disk) sync(lba, blocks uint64) error {
	d.mu.Lock()
	for n := range d.stale {
		if n >= lba && (blocks == 0 || n-lba < blocks) {
			delete(d.stale, n)
		}
	}
	d.mu.Unlock()
	return d.Medium.Sync()
}

// lun is the unit's number on the wire.
func (d *Disk) lun() scsi.LUN {
	l, _ := scsi.LUNFromInt(d.Number)
	return l
}
