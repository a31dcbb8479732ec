package verbs

import (
	"fmt"
	"math"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// RegionID names one region of an Arena: a small dense number, fit for indexing.
type RegionID uint32

// Access says what may touch a region besides this process.
type Access uint8

const (
	// AccessLocal lets only the local device read and write: receive buffers and headers.
	AccessLocal Access = iota + 1
	// AccessRemote also lets the peer in, by two keys: one only writes (data of our reads), one only reads
	// (data of our writes), so that a wrong direction is refused by the device.
	AccessRemote
)

// Region is a part of an Arena with memory keys of its own.
type Region struct {
	Off    int // bytes from the arena's start, page aligned
	Len    int // bytes, a multiple of the page size; 0 marks a region that was released
	Access Access
	// Shared: it is a file of other programs (CarveFile), which may have become such that no device can register it.
	// Conn.Sync says so the first time; whoever dials afterwards goes without its keys.
	Shared bool
}

// Keys are a region's memory keys on one device. The peer addresses memory by its virtual address in this process.
type Keys struct {
	LKey     uint32 // for SGEs
	ReadKey  uint32 // rkey that lets the peer read (AccessRemote)
	WriteKey uint32 // rkey that lets the peer write (AccessRemote)
}

// Arena is the memory that devices and kernels touch: one memfd mapped outside the Go heap at an address that never
// changes. It is sparse: only carved regions are ever populated. Safe for concurrent use, except that a
// region's bytes belong to whoever carved it.
type Arena struct {
	mem  []byte
	fd   int
	page int

	mu      sync.Mutex
	next    int // first byte never carved
	regions []Region
	free    []RegionID // released regions, to be carved again by size
	files   []*mapping // regions that are others' files, and places of such
}

// NewArena reserves room for capacity bytes of regions (rounded up to a page) without using memory yet.
func NewArena(capacity int) (*Arena, error) {
	page := os.Getpagesize()
	if capacity <= 0 || capacity > math.MaxInt-page {
		return nil, &OpError{Op: "create arena", Err: fmt.Errorf("capacity of %d bytes", capacity)}
	}
	capacity = roundUp(capacity, page)
	fd, err := unix.MemfdCreate("iserblk-arena", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, &OpError{Op: "create arena", Err: err}
	}
	if err := unix.Ftruncate(fd, int64(capacity)); err != nil {
		unix.Close(fd)
		return nil, &OpError{Op: "size arena", Err: err}
	}
	mem, err := unix.Mmap(fd, 0, capacity, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		unix.Close(fd)
		return nil, &OpError{Op: "map arena", Err: err}
	}
	// A child must not get at it, and pinned pages must not be copied on fork.
	_ = unix.Madvise(mem, unix.MADV_DONTFORK)
	return &Arena{mem: mem, fd: fd, page: page}, nil
}

// Carve takes a region of size bytes (rounded up to a page). Its bytes are zero the first time only.
func (a *Arena) Carve(size int, access Access) (RegionID, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if size <= 0 || size > len(a.mem) { // a length of 0 would mean a released region
		return 0, &OpError{Op: "carve region", Err: fmt.Errorf("%d bytes of an arena of %d", size, len(a.mem))}
	}
	size = roundUp(size, a.page)
	for i, id := range a.free {
		if r := a.regions[id]; -r.Len == size && r.Access == access {
			a.free = append(a.free[:i], a.free[i+1:]...)
			a.regions[id].Len = size
			return id, nil
		}
	}
	if a.next+size > len(a.mem) {
		return 0, &OpError{Op: "carve region", Err: fmt.Errorf("arena of %d bytes is full", len(a.mem))}
	}
	a.regions = append(a.regions, Region{Off: a.next, Len: size, Access: access})
	a.next += size
	return RegionID(len(a.regions) - 1), nil
}

// Release gives a region back for a later Carve of the same size and access. Its owner must be sure that no device
// can touch it any more. Conn.Sync drops its keys.
func (a *Arena) Release(id RegionID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.releaseFile(id) {
		return
	}
	if r := &a.regions[id]; r.Len > 0 {
		r.Len = -r.Len // remembers the size for Carve
		a.free = append(a.free, id)
	}
}

// Mem is the region's bytes, none of a region that was released. The slice is valid until Close.
func (a *Arena) Mem(id RegionID) []byte {
	a.mu.Lock()
	r := a.regions[id]
	a.mu.Unlock()
	end := r.Off + max(r.Len, 0)
	return a.mem[r.Off:end:end]
}

// Regions is a copy of the table, indexed by RegionID. Released ones have Len 0.
func (a *Arena) Regions() []Region {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Region, len(a.regions))
	copy(out, a.regions)
	for i := range out {
		out[i].Len = max(out[i].Len, 0)
	}
	return out
}

// Base is the address of the arena's first byte.
func (a *Arena) Base() uintptr { return uintptr(unsafe.Pointer(&a.mem[0])) }

// Used is how many bytes have ever been carved: what the arena can pin at most.
func (a *Arena) Used() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.next
}

// Close unmaps the arena. Every connection that uses it must be closed before.
func (a *Arena) Close() error {
	if a.mem == nil {
		return nil
	}
	err := unix.Munmap(a.mem)
	a.mem = nil
	unix.Close(a.fd)
	return err
}

// Addr is the address of b's first byte as a device sees it. b must lie in an arena.
func Addr(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

func roundUp(n, to int) int { return (n + to - 1) / to * to }
