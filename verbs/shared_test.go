package verbs

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// sharedMemory is a file of pages pages, and another program's view of it.
func sharedMemory(t *testing.T, pages int) (*os.File, []byte) {
	t.Helper()
	fd, err := unix.MemfdCreate("client", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "client")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(int64(pages * os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	view, err := unix.Mmap(fd, 0, pages*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(view) })
	return f, view
}

func carve(t *testing.T, a *Arena, size int) RegionID {
	t.Helper()
	id, err := a.Carve(size, AccessRemote)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func fill(mem []byte, b byte) {
	for i := range mem {
		mem[i] = b
	}
}

func TestAFileInTheArenaIsTheSameMemoryAsElsewhere(t *testing.T) {
	a := newArena(t, 64*os.Getpagesize())
	before := carve(t, a, os.Getpagesize())
	f, view := sharedMemory(t, 3)
	id, err := a.CarveFile(f, AccessRemote)
	if err != nil {
		t.Fatal(err)
	}
	after := carve(t, a, os.Getpagesize())
	mem := a.Mem(id)
	if len(mem) != len(view) {
		t.Fatalf("%d bytes of %d", len(mem), len(view))
	}
	copy(view, "from there")
	copy(mem[2*os.Getpagesize():], "from here")
	if !bytes.HasPrefix(mem, []byte("from there")) || !bytes.HasPrefix(view[2*os.Getpagesize():], []byte("from here")) {
		t.Error("not the same memory")
	}
	fill(a.Mem(before), 1)
	fill(a.Mem(after), 2)
	if !bytes.HasPrefix(mem, []byte("from there")) {
		t.Error("the regions beside it reach into it")
	}
}

func TestAReleasedFileIsNotTouchedAnyMoreAndItsPlaceIsUsedAgain(t *testing.T) {
	a := newArena(t, 8*os.Getpagesize())
	f, view := sharedMemory(t, 3)
	seen := map[RegionID]bool{}
	for range 100 { // 8 pages would do for two
		id, err := a.CarveFile(f, AccessRemote)
		if err != nil {
			t.Fatal(err)
		}
		if seen[id] {
			t.Fatalf("region %d twice: keys of the one before may still be about", id)
		}
		seen[id] = true
		where := a.Base() + uintptr(a.Regions()[id].Off)
		old := a.Mem(id)
		a.Release(id)
		a.Release(id)
		if r := a.Regions()[id]; r.Len != 0 || len(a.Mem(id)) != 0 {
			t.Fatalf("released region is %+v", r)
		}
		fill(old, 7) // whoever is late meets the arena's own memory, and not a hole
		if view[0] != 0 {
			t.Fatalf("memory at %#x is still the file's", where)
		}
	}
}

func TestAFileOfHugePagesIsAligned(t *testing.T) {
	const huge = 2 << 20
	a := newArena(t, 4*huge)
	carve(t, a, os.Getpagesize())
	m, err := a.room(huge, huge)
	if err != nil {
		t.Fatal(err)
	}
	if at := int(a.Base()) + m.off; at%huge != 0 {
		t.Errorf("at %#x", at)
	}
	next := carve(t, a, os.Getpagesize())
	if off := a.Regions()[next].Off; off != m.off+huge {
		t.Errorf("what follows is at %#x, not %#x", off, m.off+huge)
	}
}

func TestWhatCannotBeSharedIsRefused(t *testing.T) {
	a := newArena(t, 8*os.Getpagesize())
	empty, _ := sharedMemory(t, 1)
	odd, _ := sharedMemory(t, 1)
	large, _ := sharedMemory(t, 9)
	if err := empty.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := odd.Truncate(5000); err != nil {
		t.Fatal(err)
	}
	elsewhere, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	for f, why := range map[*os.File]string{
		empty: "multiple of its page", odd: "multiple of its page", large: "no room", elsewhere: "tmpfs or hugetlbfs",
	} {
		if id, err := a.CarveFile(f, AccessRemote); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: region %d, %v; want %q", f.Name(), id, err, why)
		}
	}
	readOnly, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(odd.Fd())))
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	if err := odd.Truncate(int64(os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	if _, err := a.CarveFile(readOnly, AccessRemote); err == nil {
		t.Error("a file that may not be written is shared")
	}
	if n := len(a.Regions()); n != 0 {
		t.Errorf("%d regions are left", n)
	}
}
