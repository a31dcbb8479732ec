package softroce

import (
	"crypto/rand"

	"iserblk/verbs"
	"iserblk/verbs/softroce/rc"
)

// memory is what of an arena one connection's peer and work requests may touch: each carved region under random keys of
// its own, one for each right, and nothing else. The connection's mutex guards it.
type memory struct {
	*rc.Memory
	arena   *verbs.Arena
	regions []region // by verbs.RegionID
}

type region struct {
	verbs.Region
	keys verbs.Keys
	addr uint64
}

func newMemory(a *verbs.Arena) *memory {
	var seed [32]byte
	_, _ = rand.Read(seed[:]) // never fails
	m := &memory{Memory: rc.NewMemory(seed), arena: a}
	if a != nil {
		m.sync()
	}
	return m
}

// sync registers what is new in the arena and drops what is gone.
func (m *memory) sync() {
	for i, r := range m.arena.Regions() {
		if i == len(m.regions) {
			m.regions = append(m.regions, region{})
		}
		if m.regions[i].Region == r {
			continue
		}
		m.drop(&m.regions[i])
		if r.Len > 0 {
			m.register(verbs.RegionID(i), r)
		}
	}
}

func (m *memory) drop(r *region) {
	for _, key := range [...]uint32{r.keys.LKey, r.keys.ReadKey, r.keys.WriteKey} {
		if key != 0 {
			m.Revoke(key)
		}
	}
	*r = region{}
}

func (m *memory) register(id verbs.RegionID, r verbs.Region) {
	mem := m.arena.Mem(id)
	if len(mem) == 0 {
		return // released meanwhile by somebody else
	}
	n := region{Region: r, addr: verbs.Addr(mem)}
	n.keys.LKey = m.Register(mem, n.addr, rc.Local)
	if r.Access == verbs.AccessRemote {
		n.keys.ReadKey = m.Register(mem, n.addr, rc.PeerReads)
		n.keys.WriteKey = m.Register(mem, n.addr, rc.PeerWrites)
	}
	m.regions[id] = n
}

func (m *memory) keys(id verbs.RegionID) verbs.Keys {
	if int(id) >= len(m.regions) {
		return verbs.Keys{}
	}
	return m.regions[id].keys
}

// lkeyAt is the local key for an address: the receives of a DialAttr come before their keys are known.
func (m *memory) lkeyAt(addr uint64) uint32 {
	for i := range m.regions {
		if r := &m.regions[i]; addr >= r.addr && addr-r.addr < uint64(r.Len) {
			return r.keys.LKey
		}
	}
	return 0
}
