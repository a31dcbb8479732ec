package verbs

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapping is a part of the arena that shows a file of other programs instead of the arena's own memory.
type mapping struct {
	off, room int // its place, in bytes
	len       int // of the file
	id        RegionID
	inUse     bool
}

// CarveFile takes a region whose bytes are all of a file on tmpfs or hugetlbfs (a memfd is one, too), which other programs
// map as well: what a device moves there it moves into their memory. The file's size must be a multiple of its page. f
// may be closed afterwards.
//
// The processor of this program must not touch such a region: whoever may write the file may also cut it off, and
// what is not there any more ends the program that looks. A device is safe, as it holds on to the pages that it found.
func (a *Arena) CarveFile(f *os.File, access Access) (RegionID, error) {
	size, page, err := sharedFile(f)
	if err != nil {
		return 0, &OpError{Op: "share " + f.Name(), Err: err}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	m, err := a.room(size, page)
	if err != nil {
		return 0, &OpError{Op: "share " + f.Name(), Err: err}
	}
	if err := a.remap(int(f.Fd()), m); err != nil {
		return 0, &OpError{Op: "map " + f.Name(), Err: err}
	}
	// A number of its own each time: keys of another file by the same number must not outlive it.
	m.id, m.inUse = RegionID(len(a.regions)), true
	a.regions = append(a.regions, Region{Off: m.off, Len: m.len, Access: access, Shared: true})
	return m.id, nil
}

// sharedFile checks that f can be shared, and gives its size and that of its pages.
func sharedFile(f *os.File) (size, page int, err error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return 0, 0, err
	}
	st, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	switch page = os.Getpagesize(); {
	case fs.Type == unix.HUGETLBFS_MAGIC:
		page = int(fs.Bsize)
	case fs.Type != unix.TMPFS_MAGIC:
		return 0, 0, fmt.Errorf("it is not on tmpfs or hugetlbfs: only memory can be shared")
	}
	if !st.Mode().IsRegular() {
		return 0, 0, fmt.Errorf("it is no regular file")
	}
	if n := st.Size(); n == 0 || n%int64(page) != 0 {
		return 0, 0, fmt.Errorf("its size of %d bytes is not a multiple of its page of %d", n, page)
	}
	return int(st.Size()), page, nil
}

// room finds address space for a file: that of one that is gone and was no smaller, or new.
func (a *Arena) room(size, page int) (*mapping, error) {
	for _, m := range a.files {
		if !m.inUse && m.room >= size && (int(a.Base())+m.off)%page == 0 {
			m.len = size
			return m, nil
		}
	}
	off := roundUp(int(a.Base())+a.next, page) - int(a.Base())
	if size > len(a.mem) || off > len(a.mem)-size {
		return nil, fmt.Errorf("arena of %d bytes has no room for %d", len(a.mem), size)
	}
	a.next = off + size
	m := &mapping{off: off, room: size, len: size}
	a.files = append(a.files, m)
	return m, nil
}

// remap shows the file fd at m. The arena's own one gives it its memory back.
func (a *Arena) remap(fd int, m *mapping) error {
	off := int64(0)
	if fd == a.fd {
		off = int64(m.off)
	}
	at := unsafe.Pointer(&a.mem[m.off])
	flags := unix.MAP_SHARED | unix.MAP_FIXED | unix.MAP_NORESERVE
	if _, err := unix.MmapPtr(fd, off, at, uintptr(m.len), unix.PROT_READ|unix.PROT_WRITE, flags); err != nil {
		return err
	}
	_ = unix.Madvise(a.mem[m.off:m.off+m.len], unix.MADV_DONTFORK)
	return nil
}

// releaseFile ends the view of a file. It says whether the region was one.
func (a *Arena) releaseFile(id RegionID) bool {
	for _, m := range a.files {
		if m.inUse && m.id == id {
			m.inUse = a.remap(a.fd, m) != nil // then nobody else gets the place
			a.regions[id].Len = 0
			a.giveBack()
			return true
		}
	}
	return false
}

// giveBack makes free places at the end of what was carved address space again.
func (a *Arena) giveBack() {
	for n := len(a.files); n > 0; n-- {
		m := a.files[n-1]
		if m.inUse || m.off+m.room != a.next {
			return
		}
		a.next = m.off
		a.files = a.files[:n-1]
	}
}
