package verbstest

import (
	"math/rand/v2"

	"iserblk/verbs"
)

// Statuses that package verbs does not name (enum ibv_wc_status).
const (
	statusLocProtErr verbs.Status = 4
	statusRemInvReq  verbs.Status = 9
)

// right is what a key lets its holder do.
type right uint8

const (
	localUse right = iota + 1
	peerReads
	peerWrites
)

type grant struct {
	region verbs.RegionID
	right  right
}

// window is one registered region.
type window struct {
	verbs.Region
	keys verbs.Keys
	mem  []byte
	addr uint64
}

// memory is the protection domain of one connection.
type memory struct {
	arena   *verbs.Arena
	windows []window // by RegionID; Len 0 when not registered
	grants  map[uint32]grant
}

func newMemory(a *verbs.Arena) memory {
	m := memory{arena: a, grants: make(map[uint32]grant)}
	m.sync()
	return m
}

// sync registers what is new in the arena and drops what is gone.
func (m *memory) sync() {
	for i, r := range m.arena.Regions() {
		if i == len(m.windows) {
			m.windows = append(m.windows, window{})
		}
		if m.windows[i].Region == r {
			continue
		}
		m.drop(i)
		if r.Len > 0 {
			m.register(verbs.RegionID(i), r)
		}
	}
}

func (m *memory) drop(i int) {
	k := m.windows[i].keys
	for _, key := range [...]uint32{k.LKey, k.ReadKey, k.WriteKey} {
		delete(m.grants, key)
	}
	m.windows[i] = window{}
}

func (m *memory) register(id verbs.RegionID, r verbs.Region) {
	w := window{Region: r, mem: m.arena.Mem(id)}
	if len(w.mem) == 0 {
		return // another connection has just released it
	}
	w.addr = verbs.Addr(w.mem)
	w.keys.LKey = m.key(id, localUse)
	if r.Access == verbs.AccessRemote {
		w.keys.ReadKey = m.key(id, peerReads)
		w.keys.WriteKey = m.key(id, peerWrites)
	}
	m.windows[id] = w
}

// key makes a fresh random key.
func (m *memory) key(id verbs.RegionID, use right) uint32 {
	for {
		k := rand.Uint32()
		if _, taken := m.grants[k]; k != 0 && !taken {
			m.grants[k] = grant{id, use}
			return k
		}
	}
}

func (m *memory) keys(id verbs.RegionID) verbs.Keys {
	if int(id) >= len(m.windows) {
		return verbs.Keys{}
	}
	return m.windows[id].keys
}

// bytes is the memory at addr that key opens for use, or false.
func (m *memory) bytes(key uint32, use right, addr uint64, n int) ([]byte, bool) {
	g, ok := m.grants[key]
	if !ok || g.right != use {
		return nil, false
	}
	return m.windows[g.region].bytes(addr, n)
}

func (w *window) bytes(addr uint64, n int) ([]byte, bool) {
	off := addr - w.addr
	if addr < w.addr || n < 0 || off > uint64(w.Len) || uint64(n) > uint64(w.Len)-off {
		return nil, false
	}
	return w.mem[off : off+uint64(n)], true
}

// anywhere is the memory at addr whatever region it lies in: for inline sends, which need no key.
func (m *memory) anywhere(addr uint64, n int) ([]byte, bool) {
	for i := range m.windows {
		if b, ok := m.windows[i].bytes(addr, n); ok {
			return b, true
		}
	}
	return nil, false
}

// lkeyAt is the local key for addr: the receives of a DialAttr come before their keys are known.
func (m *memory) lkeyAt(addr uint64) uint32 {
	for i := range m.windows {
		if _, ok := m.windows[i].bytes(addr, 1); ok {
			return m.windows[i].keys.LKey
		}
	}
	return 0
}
