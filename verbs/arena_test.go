package verbs

import (
	"bytes"
	"errors"
	"math"
	"os"
	"testing"

	"pgregory.net/rapid"
)

func newArena(t interface {
	Fatal(...any)
	Cleanup(func())
}, capacity int,
) *Arena {
	a, err := NewArena(capacity)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func TestAnArenaTakesNoMemoryBeforeItIsUsed(t *testing.T) {
	a := newArena(t, 1<<40)
	id, err := a.Carve(100, AccessLocal)
	if err != nil {
		t.Fatal(err)
	}
	if mem := a.Mem(id); len(mem) != os.Getpagesize() || cap(mem) != len(mem) || mem[len(mem)-1] != 0 {
		t.Errorf("%d bytes, capacity %d", len(mem), cap(mem))
	}
	if a.Used() != os.Getpagesize() {
		t.Errorf("%d bytes used", a.Used())
	}
}

func TestARegionKeepsItsAddressAndItsBytes(t *testing.T) {
	a := newArena(t, 1<<20)
	first, _ := a.Carve(1, AccessRemote)
	copy(a.Mem(first), "data")
	at := Addr(a.Mem(first))
	for range 20 {
		if _, err := a.Carve(1, AccessLocal); err != nil {
			t.Fatal(err)
		}
	}
	if Addr(a.Mem(first)) != at || !bytes.HasPrefix(a.Mem(first), []byte("data")) {
		t.Error("it moved")
	}
	if at != uint64(a.Base())+uint64(a.Regions()[first].Off) {
		t.Error("its offset is not its place")
	}
}

func TestWhatDoesNotFitIsRefused(t *testing.T) {
	a := newArena(t, 4*os.Getpagesize())
	for _, size := range []int{0, -1, math.MinInt, math.MaxInt, math.MaxInt - 1, 4*os.Getpagesize() + 1} {
		if _, err := a.Carve(size, AccessLocal); err == nil {
			t.Errorf("%d bytes were carved", size)
		}
	}
	if _, err := a.Carve(4*os.Getpagesize(), AccessLocal); err != nil {
		t.Error(err)
	}
	_, err := a.Carve(1, AccessLocal)
	var op *OpError
	if !errors.As(err, &op) {
		t.Errorf("a full arena: %v", err)
	}
	for _, capacity := range []int{0, -1, math.MaxInt} {
		if _, err := NewArena(capacity); err == nil {
			t.Errorf("an arena of %d bytes", capacity)
		}
	}
}

func TestAnArenaClosesOnce(t *testing.T) {
	a, err := NewArena(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Error(err)
	}
}

// model is what an arena should look like: its live regions and the sizes of released ones.
type model struct {
	arena *Arena
	live  map[RegionID]Region
	seals map[RegionID]byte
	freed map[RegionID]Region
}

func (m *model) carve(t *rapid.T) {
	size := rapid.IntRange(1, 4*os.Getpagesize()).Draw(t, "size")
	access := rapid.SampledFrom([]Access{AccessLocal, AccessRemote}).Draw(t, "access")
	id, err := m.arena.Carve(size, access)
	if err != nil {
		return // full
	}
	r := m.arena.Regions()[id]
	old, reused := m.freed[id]
	_, taken := m.live[id]
	switch {
	case taken:
		t.Fatalf("region %d is in use", id)
	case r.Len < size || r.Len%os.Getpagesize() != 0 || r.Off%os.Getpagesize() != 0 || r.Access != access:
		t.Fatalf("%d bytes became %+v", size, r)
	case reused && old != r:
		t.Fatalf("region %d was %+v and is %+v", id, old, r)
	}
	delete(m.freed, id)
	m.live[id], m.seals[id] = r, byte(rapid.IntRange(0, 255).Draw(t, "seal"))
	for i := range m.arena.Mem(id) {
		m.arena.Mem(id)[i] = m.seals[id]
	}
}

func (m *model) release(t *rapid.T) {
	ids := make([]RegionID, 0, len(m.live))
	for id := range m.arena.Regions() {
		if _, ok := m.live[RegionID(id)]; ok {
			ids = append(ids, RegionID(id))
		}
	}
	if len(ids) == 0 {
		return
	}
	id := rapid.SampledFrom(ids).Draw(t, "region")
	m.arena.Release(id)
	m.arena.Release(id) // changes nothing
	m.freed[id] = m.live[id]
	delete(m.live, id)
}

// check finds any overlap: every region still has the bytes that were written when it was carved.
func (m *model) check(t *rapid.T) {
	for id, r := range m.arena.Regions() {
		want, ok := m.live[RegionID(id)]
		if !ok {
			if r.Len != 0 {
				t.Fatalf("released region %d: %+v", id, r)
			}
			continue
		}
		mem := m.arena.Mem(RegionID(id))
		if r != want || !bytes.Equal(mem, bytes.Repeat([]byte{m.seals[RegionID(id)]}, r.Len)) {
			t.Fatalf("region %d: %+v, want %+v", id, r, want)
		}
	}
}

func TestRegionsNeverOverlapAndAreReusedAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{
			arena: newArena(t, 64*os.Getpagesize()),
			live:  make(map[RegionID]Region), seals: make(map[RegionID]byte), freed: make(map[RegionID]Region),
		}
		t.Repeat(map[string]func(*rapid.T){"carve": m.carve, "release": m.release, "": m.check})
	})
}
