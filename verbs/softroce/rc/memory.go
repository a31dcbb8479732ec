package rc

import "math/rand/v2"

// Right is what a key lets its holder do with a window of memory.
type Right uint8

// The rights. Each key has one.
const (
	Local      Right = iota + 1 // for work requests of this side
	PeerReads                   // by RDMA READ
	PeerWrites                  // by RDMA WRITE
)

type window struct {
	key   uint32 // 0 in a free place
	right Right
	addr  uint64
	mem   []byte
}

// Memory is the memory that one queue pair may touch: windows under random 32-bit keys. A key opens its window, in its
// direction, and nothing else. Like the queue pair it is not safe for concurrent use.
type Memory struct {
	table []window // open addressing by the key's low bits; at most half full
	used  int
	rand  *rand.ChaCha8
}

// NewMemory makes a Memory without windows. The seed must come from crypto/rand wherever a stranger can send packets:
// it is what makes keys unpredictable.
func NewMemory(seed [32]byte) *Memory {
	return &Memory{table: make([]window, 64), rand: rand.NewChaCha8(seed)}
}

// Register opens mem under a key of its own, never 0. The peer and work requests call its first byte addr. It
// allocates only when there are more windows than ever before.
func (m *Memory) Register(mem []byte, addr uint64, right Right) uint32 {
	if 2*(m.used+1) > len(m.table) {
		m.grow()
	}
	w := window{key: m.newKey(), right: right, addr: addr, mem: mem[:len(mem):len(mem)]}
	m.table[m.place(w.key)] = w
	m.used++
	return w.key
}

// Revoke closes a window for good: nothing reaches its memory by that key from now on, not even the rest of a transfer
// that has begun. It tells whether there was one.
func (m *Memory) Revoke(key uint32) bool {
	i := m.place(key)
	if key == 0 || m.table[i].key == 0 {
		return false
	}
	m.used--
	m.table[i] = window{}
	m.closeGap(i)
	return true
}

// closeGap moves windows back to where a search that starts at their own place finds them.
func (m *Memory) closeGap(gap int) {
	mask := len(m.table) - 1
	for i := (gap + 1) & mask; m.table[i].key != 0; i = (i + 1) & mask {
		home := int(m.table[i].key) & mask
		if (i-home)&mask >= (i-gap)&mask {
			m.table[gap], m.table[i] = m.table[i], window{}
			gap = i
		}
	}
}

// Rotate gives a window a new key and closes it to holders of the old one. The result is 0 where there is no such window.
func (m *Memory) Rotate(key uint32) uint32 {
	w := m.table[m.place(key)]
	if !m.Revoke(key) {
		return 0
	}
	return m.Register(w.mem, w.addr, w.right)
}

// Resolve is the n bytes at addr, if key opens them all for this use.
func (m *Memory) Resolve(key uint32, right Right, addr uint64, n int) ([]byte, bool) {
	w := &m.table[m.place(key)]
	if key == 0 || w.key != key || w.right != right {
		return nil, false
	}
	return w.bytes(addr, n)
}

// Find is the n bytes at addr in any local window: what is sent inline, or received before its key is known.
func (m *Memory) Find(addr uint64, n int) ([]byte, bool) {
	for i := range m.table {
		if w := &m.table[i]; w.key != 0 && w.right == Local {
			if b, ok := w.bytes(addr, n); ok {
				return b, true
			}
		}
	}
	return nil, false
}

// Len is the number of windows.
func (m *Memory) Len() int { return m.used }

// bytes takes care that no sum overflows.
func (w *window) bytes(addr uint64, n int) ([]byte, bool) {
	off := addr - w.addr
	if addr < w.addr || n < 0 || off > uint64(len(w.mem)) || uint64(n) > uint64(len(w.mem))-off {
		return nil, false
	}
	return w.mem[off : off+uint64(n) : off+uint64(n)], true
}

// place is where key is, or the free place where it belongs.
func (m *Memory) place(key uint32) int {
	mask := len(m.table) - 1
	i := int(key) & mask
	for m.table[i].key != 0 && m.table[i].key != key {
		i = (i + 1) & mask
	}
	return i
}

func (m *Memory) newKey() uint32 {
	for {
		key := uint32(m.rand.Uint64())
		if key != 0 && m.table[m.place(key)].key == 0 {
			return key
		}
	}
}

func (m *Memory) grow() {
	old := m.table
	m.table = make([]window, 2*len(old))
	for _, w := range old {
		if w.key != 0 {
			m.table[m.place(w.key)] = w
		}
	}
}
