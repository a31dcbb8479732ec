package rc

import (
	"bytes"
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestMemoryOpensWhatWasRegisteredAndNothingElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := NewMemory([32]byte{byte(rapid.IntRange(0, 9).Draw(t, "seed"))})
		model := map[uint32]window{}
		var keys []uint32
		key := func() uint32 {
			if len(keys) > 0 && rapid.IntRange(0, 9).Draw(t, "known") > 0 {
				return rapid.SampledFrom(keys).Draw(t, "key")
			}
			return rapid.Uint32().Draw(t, "key")
		}
		t.Repeat(map[string]func(*rapid.T){
			"register": func(t *rapid.T) {
				w := window{
					right: rapid.SampledFrom([]Right{Local, PeerReads, PeerWrites}).Draw(t, "right"),
					addr:  rapid.Uint64().Draw(t, "addr"), mem: make([]byte, rapid.IntRange(0, 100).Draw(t, "len")),
				}
				w.key = m.Register(w.mem, w.addr, w.right)
				if _, taken := model[w.key]; taken || w.key == 0 {
					t.Fatalf("key %#x", w.key)
				}
				model[w.key] = w
				keys = append(keys, w.key)
			},
			"revoke": func(t *rapid.T) {
				k := key()
				_, known := model[k]
				if m.Revoke(k) != known {
					t.Fatalf("key %#x, known: %v", k, known)
				}
				delete(model, k)
			},
			"rotate": func(t *rapid.T) {
				k := key()
				w, known := model[k]
				fresh := m.Rotate(k)
				if (fresh != 0) != known || fresh == k && known {
					t.Fatalf("key %#x became %#x, known: %v", k, fresh, known)
				}
				if known {
					delete(model, k)
					w.key = fresh
					model[fresh] = w
					keys = append(keys, fresh)
				}
			},
			"": func(t *rapid.T) {
				if m.Len() != len(model) {
					t.Fatalf("%d windows, not %d", m.Len(), len(model))
				}
				for k, w := range model {
					if b, ok := m.Resolve(k, w.right, w.addr, len(w.mem)); !ok || len(b) != len(w.mem) {
						t.Fatalf("window %#x is closed", k)
					}
					if _, ok := m.Resolve(k, w.right%PeerWrites+1, w.addr, len(w.mem)); ok {
						t.Fatalf("window %#x opens in a direction that is not its own", k)
					}
				}
				k := key()
				if _, known := model[k]; !known {
					if _, ok := m.Resolve(k, Local, 0, 0); ok {
						t.Fatalf("key %#x opens", k)
					}
				}
			},
		})
	})
}

func TestARangeMustLieWithinItsWindow(t *testing.T) {
	m := NewMemory([32]byte{})
	mem := make([]byte, 4096)
	high := uint64(math.MaxUint64 - 4095) // its last byte has the last address there is
	for _, base := range []uint64{0, 0x1000, high} {
		key := m.Register(mem[1024:2048], base+1024, PeerWrites)
		for _, c := range []struct {
			addr uint64
			n    int
			ok   bool
		}{
			{base + 1024, 1024, true},
			{base + 1024, 0, true},
			{base + 2047, 1, true},
			{base + 1024, 1025, false},
			{base + 1023, 1, false},
			{base + 2047, 2, false},
			{base + 1024, -1, false},
			{base + 1024, math.MaxInt, false},
			{base + 1023, math.MaxInt, false},
			{math.MaxUint64, 2, false},
		} {
			b, ok := m.Resolve(key, PeerWrites, c.addr, c.n)
			if ok != c.ok || ok && (len(b) != c.n || cap(b) != c.n) {
				t.Errorf("base %#x: %d bytes at %#x: %v", base, c.n, c.addr, ok)
			}
		}
	}
}

func TestMemoryIsFoundByAddressAmongLocalWindowsOnly(t *testing.T) {
	m := NewMemory([32]byte{})
	mem := []byte("0123456789")
	m.Register(mem, 100, PeerReads)
	if _, ok := m.Find(100, 1); ok {
		t.Error("a window of the peer's was found")
	}
	m.Register(mem, 100, Local)
	if b, ok := m.Find(103, 4); !ok || !bytes.Equal(b, mem[3:7]) {
		t.Errorf("%q", b)
	}
	if _, ok := m.Find(103, 8); ok {
		t.Error("more than there is was found")
	}
}

func TestKeysForEachRequestAllocateNothing(t *testing.T) {
	m := NewMemory([32]byte{})
	mem := make([]byte, 16)
	for range 40 {
		m.Register(mem, 0, Local)
	}
	key := m.Register(mem, 0, PeerReads)
	if n := testing.AllocsPerRun(1000, func() {
		key = m.Rotate(key)
		m.Revoke(m.Register(mem, 0, PeerWrites))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSeedsMakeDifferentKeys(t *testing.T) {
	mem := make([]byte, 1)
	if NewMemory([32]byte{1}).Register(mem, 0, Local) == NewMemory([32]byte{2}).Register(mem, 0, Local) {
		t.Error("two queue pairs share a key")
	}
}
