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
}

// Disk is a logical unit in memory.
type Disk struct {
	DiskOptions
	Number int

	mu    sync.Mutex
	mem   []byte
	stale map[uint64][]byte // by LBA: what a power loss would bring back
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
	return &Disk{
		DiskOptions: o, Number: n,
		mem: make([]byte, o.Blocks*uint64(o.BlockSize)), stale: make(map[uint64][]byte),
	}
}

// ReadAt copies n bytes from byte off on: what an initiator would read.
func (d *Disk) ReadAt(off, n int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]byte(nil), d.mem[off:off+n]...)
}

// WriteAt changes the content behind the initiator's back, durably.
func (d *Disk) WriteAt(off int, b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.mem[off:], b)
}

// PowerLoss forgets every write that was not made durable.
func (d *Disk) PowerLoss() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for lba, old := range d.stale {
		copy(d.block(lba), old)
	}
	clear(d.stale)
}

// Resize changes the capacity. The initiators must be told by a unit attention (2A/09).
func (d *Disk) Resize(blocks uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	mem := make([]byte, blocks*uint64(d.BlockSize))
	copy(mem, d.mem)
	d.mem, d.Blocks = mem, blocks
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

func (d *Disk) block(lba uint64) []byte {
	off := lba * uint64(d.BlockSize)
	return d.mem[off : off+uint64(d.BlockSize)]
}

// inRange tells whether blocks exist.
func (d *Disk) inRange(lba, blocks uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return lba <= d.Blocks && blocks <= d.Blocks-lba
}

func (d *Disk) read(lba, blocks uint64) []byte {
	return d.ReadAt(int(lba*uint64(d.BlockSize)), int(blocks*uint64(d.BlockSize)))
}

// write stores whole blocks, durably or in the cache.
func (d *Disk) write(lba uint64, data []byte, durable bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	size := int(d.BlockSize)
	for i := 0; i+size <= len(data); i += size {
		n := lba + uint64(i/size)
		if durable || !d.WriteCache {
			delete(d.stale, n)
		} else if d.stale[n] == nil {
			d.stale[n] = append([]byte(nil), d.block(n)...)
		}
		copy(d.block(n), data[i:i+size])
	}
}

// sync makes blocks durable; none means all from lba on.
func (d *Disk) sync(lba, blocks uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n := range d.stale {
		if n >= lba && (blocks == 0 || n-lba < blocks) {
			delete(d.stale, n)
		}
	}
}

// lun is the unit's number on the wire.
func (d *Disk) lun() scsi.LUN {
	l, _ := scsi.LUNFromInt(d.Number)
	return l
}
