package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"iserblk/session"
	"iserblk/session/multipath"
	"iserblk/verbs"
)

// device is one attached unit.
type device struct {
	lun     uint64
	opts    AttachOptions
	unit    *multipath.Unit
	front   front
	queues  []*multipath.Queue
	regions []verbs.RegionID
	grown   chan struct{} // has room for one: the unit has another size than the device
}

// Attach makes devices of LUNs: all or nothing for an explicit list.
func (e *engine) Attach(ctx context.Context, luns []uint64, o AttachOptions) ([]Device, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fe, err := e.fronts.pick(ctx, o)
	if err != nil {
		return nil, err
	}
	found, err := e.find(ctx, luns)
	if err != nil {
		return nil, err
	}
	if o.Export.Listen != "" && len(found) > 1 {
		return nil, fmt.Errorf("%w: --listen is for one LUN, %s has %d", ErrInput, e.spec.Target, len(found))
	}
	if err := e.canShare(o); err != nil {
		return nil, err
	}
	var made []*device
	for _, lu := range found {
		e.log.Info("attaching", "lun", lu.LUN.String())
		d, err := e.add(ctx, lu, making{frontend: fe, opts: o})
		if err != nil {
			for _, d := range made {
				_ = e.remove(context.WithoutCancel(ctx), d, true)
			}
			return nil, err
		}
		made = append(made, d)
	}
	out := make([]Device, len(made))
	for i, d := range made {
		out[i] = e.describe(d)
	}
	return out, nil
}

// Adopt takes a dead worker's device over.
func (e *engine) Adopt(ctx context.Context, old Device) (Device, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	o := AttachOptions{Frontend: old.Frontend, ReadOnly: old.ReadOnly, DeadTimeout: old.DeadTimeout, NoModprobe: true}
	fe, err := e.fronts.pick(ctx, o)
	if err != nil {
		return Device{}, err
	}
	if err := e.begun[old.LUN]; err != nil {
		return Device{}, err
	}
	e.log.Info("taking over", "device", old.Path, "lun", old.LUN)
	if _, known := e.past.fenced[old.LUN]; !known {
		e.bereft(old.LUN) // whoever left it did not log out, whatever is written down
	}
	found, err := e.find(ctx, []uint64{old.LUN})
	if err != nil {
		return Device{}, err
	}
	if err := sameAsBefore(found[0], old); err != nil {
		return Device{}, err
	}
	d, err := e.add(ctx, found[0], making{frontend: fe, opts: o, adopt: &old})
	if errors.Is(err, errBegun) {
		err = fmt.Errorf("%w; kill -9 %d and recover", err, os.Getpid())
		e.begun[old.LUN] = err
	}
	if err != nil {
		return Device{}, err
	}
	if d.unit.Limits().Size > old.Size {
		d.grow() // it has, while nobody looked
	}
	return e.describe(d), nil
}

// errBegun: a device was taken over half way and can go no further before this process ends. Until then the kernel may use
// its memory.
var errBegun = errors.New("half taken over")

// sameAsBefore proves that what answers now is what the device was made of. It may have grown.
func sameAsBefore(lu session.LogicalUnit, old Device) error {
	size := lu.Blocks * uint64(lu.BlockSize)
	switch {
	case lu.WWN != old.WWN, lu.Serial != old.Serial:
		return fmt.Errorf("%s: LUN %d is now %q %q, was %q %q: %w", old.Path, old.LUN, lu.WWN, lu.Serial, old.WWN, old.Serial, ErrMismatch)
	case lu.BlockSize != old.BlockSize, size < old.Size:
		return fmt.Errorf("%s: LUN %d has now %d bytes in blocks of %d, had %d of %d: %w", old.Path, old.LUN, size, lu.BlockSize,
			old.Size, old.BlockSize, ErrMismatch)
	case lu.ReadOnly && !old.ReadOnly:
		return fmt.Errorf("%s: LUN %d is now write protected: %w", old.Path, old.LUN, ErrMismatch)
	case lu.WriteCache && !old.WriteCache:
		return fmt.Errorf("%s: LUN %d has now a volatile write cache, which nobody would flush: %w", old.Path, old.LUN, ErrMismatch)
	}
	return nil
}

// find looks the LUNs up at the target, over a session of its own beside the lanes'.
func (e *engine) find(ctx context.Context, luns []uint64) ([]session.LogicalUnit, error) {
	for _, n := range luns {
		if e.attached(n) {
			return nil, fmt.Errorf("LUN %d of %s: %w", n, e.spec.Target, ErrAttached)
		}
	}
	var found []session.LogicalUnit
	err := e.target.visit(ctx, func(ctx context.Context, n *session.Nexus, scratch session.Buffer) (err error) {
		if found, err = probeAll(ctx, n, scratch, luns, e.attached); err != nil {
			return err
		}
		return e.fence(ctx, n, found)
	})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%s has no disk that is not attached: %w", e.spec.Target, ErrNotFound)
	}
	return found, err
}

func (e *engine) attached(lun uint64) bool {
	e.view.RLock()
	defer e.view.RUnlock()
	_, ok := e.devices[lun]
	return ok
}

// making is how a device comes to be.
type making struct {
	frontend frontend
	opts     AttachOptions
	adopt    *Device
}

// add makes the device of one unit.
func (e *engine) add(ctx context.Context, lu session.LogicalUnit, m making) (_ *device, err error) {
	if m.opts.ReadOnly {
		lu.ReadOnly = true
	}
	number, _ := lu.LUN.Int()
	d := &device{lun: uint64(number), opts: m.opts, grown: make(chan struct{}, 1), unit: multipath.NewUnit(lu, maxTransfer, uint16(e.spec.Depth))}
	defer func() {
		if err != nil && !errors.Is(err, errBegun) {
			d.unit.Fail()
			e.drop(context.WithoutCancel(ctx), d)
		}
	}()
	d.unit.OnResize(func(uint64) { d.grow() })
	queues, err := e.memory(d, m.frontend)
	if err != nil {
		return nil, err
	}
	if err := e.admit(ctx, d, queues); err != nil {
		return nil, err
	}
	if err := e.create(ctx, d, m, queues); err != nil {
		return nil, err
	}
	e.view.Lock()
	e.devices[d.lun] = d
	e.view.Unlock()
	go e.watch(d)
	return d, nil
}

// admit makes every lane's session know d's unit, and each of them check it.
func (e *engine) admit(ctx context.Context, d *device, queues []queuePlan) error {
	for i, s := range e.lanes {
		if err := s.path.AddUnit(ctx, d.unit, d.queues[i]); err != nil {
			return err
		}
		first := queues[i].buffers[0]
		if err := s.path.Admit(ctx, d.unit, session.Buffer{Mem: first.mem, Region: first.region}); err != nil {
			return fmt.Errorf("LUN %d by queue %d: %w", d.lun, i, err)
		}
	}
	return nil
}

// create has the front end make the device. When ctx ends first the unit fails, so that what the kernel has asked of it
// already does not hold up the end; a device that is taken over is not failed so, since requests of another life wait for
// it.
func (e *engine) create(ctx context.Context, d *device, m making, queues []queuePlan) (err error) {
	p := plan{
		target: e.spec.Target, lun: d.lun, limits: d.unit.Limits(), queues: queues, opts: m.opts, adopt: m.adopt,
	}
	if len(m.opts.Shared) > 0 {
		p.share = func(register func(requestBuffer) error) error { return e.share(d, register) }
	}
	if m.adopt != nil {
		d.front, err = m.frontend.create(context.WithoutCancel(ctx), p)
		return err
	}
	calledOff := context.AfterFunc(ctx, d.unit.Fail)
	if d.front, err = m.frontend.create(ctx, p); err != nil {
		return err
	}
	if !calledOff() {
		return errors.Join(ctx.Err(), d.front.stop(context.WithoutCancel(ctx)))
	}
	return nil
}

// grow has watch look at the unit's size. It never blocks.
func (d *device) grow() {
	select {
	case d.grown <- struct{}{}:
	default:
	}
}

// watch passes on that d's unit has grown, and tells when the kernel refuses to go on with d, which nobody else would
// notice: its requests just stay away.
func (e *engine) watch(d *device) {
	for alive := true; alive; {
		select {
		case <-d.front.lost():
			alive = false
		case <-d.grown:
			e.resize(d, d.unit.Limits().Size)
		}
	}
	if err := d.front.err(); err != nil {
		e.log.Error("device is lost: detach it with --force and attach it again", "device", d.front.path(), "err", err)
	}
}

// resizeTimeout bounds the news of a new size: the kernel waits for what is in flight.
const resizeTimeout = 2 * time.Minute

// resize makes d as large as its unit.
func (e *engine) resize(d *device, size uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), resizeTimeout)
	defer cancel()
	if err := d.front.resize(ctx, size); err != nil {
		e.log.Error("the unit has grown and the device cannot", "device", d.front.path(), "bytes", size, "err", err)
		return
	}
	e.log.Info("the unit and the device have grown", "device", d.front.path(), "bytes", size)
}

// memory makes what d's requests move their data in, known to every connection.
func (e *engine) memory(d *device, fe frontend) ([]queuePlan, error) {
	e.target.registering.Lock()
	defer e.target.registering.Unlock()
	limits := d.unit.Limits()
	n, size := fe.buffers(&limits, len(e.lanes))
	queues, err := e.slices(d, n, int(size))
	if err != nil {
		return nil, err
	}
	return queues, e.sync()
}

// sync makes every connection's keys agree with the arena's regions.
func (e *engine) sync() error {
	var errs []error
	for _, s := range e.lanes {
		errs = append(errs, s.link.sync())
	}
	return errors.Join(errs...)
}

// slices carves n slices of size bytes for each queue, with keys of their own, so that a wrong STag reaches no other request.
func (e *engine) slices(d *device, n, size int) ([]queuePlan, error) {
	limits := d.unit.Limits()
	var out []queuePlan
	for _, s := range e.lanes {
		small, mem, err := e.carve(d, multipath.ParamSize*int(limits.Depth)+int(limits.BlockSize))
		if err != nil {
			return nil, err
		}
		split := multipath.ParamSize * int(limits.Depth)
		q := d.unit.AddQueue(s.path, multipath.Memory{
			Params: session.Buffer{Mem: mem[:split], Region: uint32(small)},
			Zeroes: session.Buffer{Mem: mem[split:], Region: uint32(small)},
		})
		clear(mem)
		d.queues = append(d.queues, q)
		plan := queuePlan{lane: s.lane, unit: q}
		for range n {
			id, mem, err := e.carve(d, size)
			if err != nil {
				return nil, err
			}
			plan.buffers = append(plan.buffers, requestBuffer{mem, uint32(id)})
		}
		out = append(out, plan)
	}
	return out, nil
}

func (e *engine) carve(d *device, size int) (verbs.RegionID, []byte, error) {
	id, err := e.arena.Carve(size, verbs.AccessRemote)
	if err != nil {
		return 0, nil, err
	}
	d.regions = append(d.regions, id)
	return id, e.arena.Mem(id), nil
}

// Detach removes one device.
func (e *engine) Detach(ctx context.Context, name string, force bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range e.sorted() {
		if d.front.path() == name || strconv.FormatUint(d.lun, 10) == name {
			return e.remove(ctx, d, force)
		}
	}
	return fmt.Errorf("%s: %w", name, ErrNotFound)
}

// forceGrace is how long a forced detach leaves a live target to answer what it holds.
const forceGrace = 5 * time.Second

// remove takes d away. With force nothing holds it up: what waits for a path fails at once, and a target that does
// not answer loses its connection.
func (e *engine) remove(ctx context.Context, d *device, force bool) error {
	stop := d.front.tryStop
	if force {
		stop = d.front.stop
		d.unit.Fail()
		d.front.fail(syscall.EIO)
		stuck := time.AfterFunc(forceGrace, e.cut)
		defer stuck.Stop()
	}
	if err := stop(ctx); err != nil {
		return err
	}
	e.view.Lock()
	delete(e.devices, d.lun)
	e.view.Unlock()
	if force {
		e.suspect(d.lun)
	}
	e.drop(ctx, d)
	return nil
}

// errForced is why cut ends the nexuses.
var errForced = errors.New("a device is detached by force and the target does not answer")

// cut ends every nexus, so that what the target holds comes back. The paths reconnect for the units that stay.
func (e *engine) cut() {
	for _, s := range e.lanes {
		s.path.Cut(errForced)
	}
}

// drop frees what d has besides its front end's device. None of its requests is in flight.
func (e *engine) drop(ctx context.Context, d *device) {
	for _, s := range e.lanes {
		if err := s.path.RemoveUnit(ctx, d.unit); err != nil {
			e.log.Error("forget unit", "err", err)
			return // its memory may still be known to the path: it is never used again
		}
	}
	e.target.registering.Lock()
	defer e.target.registering.Unlock()
	for _, id := range d.regions {
		e.arena.Release(id)
	}
	if err := e.sync(); err != nil {
		e.log.Error("release memory", "err", err)
	}
}
