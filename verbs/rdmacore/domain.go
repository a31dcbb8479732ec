//go:build cgo && linux

package rdmacore

// #include <infiniband/verbs.h>
// #include "shim.h"
import "C"

import (
	"context"
	"errors"
	"sync/atomic"
	"unsafe"

	"iserblk/verbs"
)

const (
	accessLocal = C.IBV_ACCESS_LOCAL_WRITE
	accessWrite = C.IBV_ACCESS_LOCAL_WRITE | C.IBV_ACCESS_REMOTE_WRITE
	accessRead  = C.IBV_ACCESS_REMOTE_READ
)

// domain is a protection domain with the memory of one arena. Its fields but keys are guarded by the device's gate.
type domain struct {
	device *device
	arena  *verbs.Arena
	pd     unsafe.Pointer
	uses   int
	mrs    []regionMRs                  // by RegionID
	keys   atomic.Pointer[[]verbs.Keys] // by RegionID; replaced as a whole, so that readers need no lock
}

// regionMRs are the memory regions of one arena region: both nil where there are none.
type regionMRs struct {
	write unsafe.Pointer // for SGEs, and for the peer to write
	read  unsafe.Pointer // for the peer to read
	keys  verbs.Keys
	// refused: a shared region that could not be registered, and need not be tried again.
	refused bool
}

// attach finds or makes the domain of an arena and registers what the arena has got. detach ends the use.
func (d *device) attach(ctx context.Context, arena *verbs.Arena) (*domain, error) {
	if err := d.lock(ctx); err != nil {
		return nil, err
	}
	defer d.unlock()
	m := d.domains[arena]
	if m == nil {
		pd := C.blk_alloc_pd(d.context)
		if pd.err != 0 {
			return nil, &verbs.OpError{Op: "allocate protection domain", Err: errno(pd.err)}
		}
		m = &domain{device: d, arena: arena, pd: pd.p}
		d.domains[arena] = m
	}
	m.uses++
	if err := m.syncLocked(true); err != nil {
		return nil, errors.Join(err, m.dropLocked())
	}
	return m, nil
}

// detach ends one use; with the last one all memory is deregistered.
func (m *domain) detach() error {
	if err := m.device.lock(context.Background()); err != nil {
		return err
	}
	defer m.device.unlock()
	return m.dropLocked()
}

func (m *domain) dropLocked() error {
	if m.uses--; m.uses > 0 {
		return nil
	}
	delete(m.device.domains, m.arena)
	var errs []error
	for i := range m.mrs {
		errs = append(errs, m.mrs[i].deregister())
	}
	return errors.Join(append(errs, errno(C.blk_dealloc_pd(m.pd)))...)
}

// sync brings the registered regions in line with the arena's.
func (m *domain) sync(ctx context.Context) error {
	if err := m.device.lock(ctx); err != nil {
		return err
	}
	defer m.device.unlock()
	if m.uses == 0 {
		return verbs.ErrClosed // the last connection was closed meanwhile
	}
	return m.syncLocked(false)
}

// syncLocked does without shared regions that cannot be registered: their owners have made them so, and nobody else is to
// suffer from it. Unless it is lenient it says so, once.
func (m *domain) syncLocked(lenient bool) error {
	regions := m.arena.Regions()
	raiseMemlock()
	for len(m.mrs) < len(regions) {
		m.mrs = append(m.mrs, regionMRs{})
	}
	var errs []error
	for id, r := range regions {
		err := m.syncRegion(&m.mrs[id], r)
		m.mrs[id].refused = m.mrs[id].refused || err != nil && r.Shared
		if err == nil || r.Shared && lenient {
			continue
		}
		errs = append(errs, err)
		if !r.Shared {
			break // the rest would fail for the same lack
		}
	}
	m.publish()
	return errors.Join(errs...)
}

func (m *domain) syncRegion(mrs *regionMRs, r verbs.Region) error {
	registered := mrs.write != nil
	switch {
	case r.Len == 0 && registered:
		return mrs.deregister()
	case r.Len > 0 && !registered && !mrs.refused:
		return m.register(mrs, r)
	}
	return nil
}

// register gives a region its memory keys.
func (m *domain) register(mrs *regionMRs, r verbs.Region) error {
	if r.Access != verbs.AccessRemote {
		local, err := m.registerOne(r, accessLocal)
		mrs.write, mrs.keys = local.mr, verbs.Keys{LKey: uint32(local.lkey)}
		return err
	}
	write, err := m.registerOne(r, accessWrite)
	if err != nil {
		return err
	}
	read, err := m.registerOne(r, accessRead)
	if err != nil {
		return errors.Join(err, errno(C.blk_dereg_mr(write.mr)))
	}
	*mrs = regionMRs{
		write: write.mr, read: read.mr,
		keys: verbs.Keys{LKey: uint32(write.lkey), WriteKey: uint32(write.rkey), ReadKey: uint32(read.rkey)},
	}
	return nil
}

func (m *domain) registerOne(r verbs.Region, access C.int) (C.struct_blk_mr, error) {
	mr := C.blk_reg_mr(m.pd, C.uintptr_t(m.arena.Base()+uintptr(r.Off)), C.size_t(r.Len), access)
	if mr.err != 0 {
		return mr, explainMemory("register memory", errno(mr.err), m.pinning())
	}
	return mr, nil
}

// pinning is how many bytes the arena wants pinned on this device: remote regions count twice, once a key.
func (m *domain) pinning() int {
	n := 0
	for _, r := range m.arena.Regions() {
		n += r.Len
		if r.Access == verbs.AccessRemote {
			n += r.Len
		}
	}
	return n
}

func (r *regionMRs) deregister() error {
	var errs []error
	for _, mr := range []unsafe.Pointer{r.read, r.write} {
		if mr != nil {
			errs = append(errs, errno(C.blk_dereg_mr(mr)))
		}
	}
	*r = regionMRs{}
	return errors.Join(errs...)
}

// publish makes the keys known to drivers.
func (m *domain) publish() {
	keys := make([]verbs.Keys, len(m.mrs))
	for i := range m.mrs {
		keys[i] = m.mrs[i].keys
	}
	m.keys.Store(&keys)
}

// regionKeys are the keys of one region, all zero when it is not registered.
func (m *domain) regionKeys(id verbs.RegionID) verbs.Keys {
	keys := *m.keys.Load()
	if int(id) >= len(keys) {
		return verbs.Keys{}
	}
	return keys[id]
}

// lkeyAt finds the key for a piece of memory.
func (m *domain) lkeyAt(addr uint64, n uint32) uint32 {
	for id, r := range m.arena.Regions() {
		start := uint64(m.arena.Base()) + uint64(r.Off)
		if r.Len > 0 && addr >= start && addr+uint64(n) <= start+uint64(r.Len) {
			return m.regionKeys(verbs.RegionID(id)).LKey
		}
	}
	return 0
}
