package worker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"iserblk/session"
	"iserblk/session/multipath"
	"iserblk/ublk"
	"iserblk/verbs"
)

// device is one attached unit.
type device struct {
	lun     uint64
	unit    *multipath.Unit
	ublk    *ublk.Device
	queues  []*multipath.Queue
	regions []verbs.RegionID
}

// Attach makes devices of LUNs: all or nothing for an explicit list.
func (e *engine) Attach(ctx context.Context, luns []uint64, o AttachOptions) ([]Device, error) {
	if err := checkFrontend(o.Frontend); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	found, err := e.find(ctx, luns)
	if err != nil {
		return nil, err
	}
	var made []*device
	for _, lu := range found {
		e.log.Info("attaching", "lun", lu.LUN.String())
		d, err := e.add(ctx, lu, o)
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
		return fenceAll(ctx, n, found)
	})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%s has no disk that is not attached: %w", e.spec.Target, ErrNotFound)
	}
	return found, err
}

// fenceAll ends what a worker that died, or a device that was detached by force, has left running at the units. The
// lanes have logged in before, so nothing of it can be on its way any more.
func fenceAll(ctx context.Context, n *session.Nexus, units []session.LogicalUnit) error {
	for _, lu := range units {
		if err := multipath.Fence(ctx, n, lu); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) attached(lun uint64) bool {
	e.view.RLock()
	defer e.view.RUnlock()
	_, ok := e.devices[lun]
	return ok
}

// add makes the device of one unit.
func (e *engine) add(ctx context.Context, lu session.LogicalUnit, o AttachOptions) (_ *device, err error) {
	if o.ReadOnly {
		lu.ReadOnly = true
	}
	number, _ := lu.LUN.Int()
	d := &device{lun: uint64(number), unit: multipath.NewUnit(lu, maxTransfer, uint16(e.spec.Depth))}
	defer func() {
		if err != nil {
			d.unit.Fail()
			e.drop(context.WithoutCancel(ctx), d)
		}
	}()
	queues, err := e.memory(d)
	if err != nil {
		return nil, err
	}
	if err := e.admit(ctx, d, queues); err != nil {
		return nil, err
	}
	if err := e.create(ctx, d, queues); err != nil {
		return nil, err
	}
	e.view.Lock()
	e.devices[d.lun] = d
	e.view.Unlock()
	go e.watch(d)
	return d, nil
}

// admit makes every lane's session know d's unit, and each of them check it.
func (e *engine) admit(ctx context.Context, d *device, queues []ublk.QueueConfig) error {
	for i, s := range e.lanes {
		if err := s.path.AddUnit(ctx, d.unit, d.queues[i]); err != nil {
			return err
		}
		first := queues[i].Buffers[0]
		if err := s.path.Admit(ctx, d.unit, session.Buffer{Mem: first.Mem, Region: first.Region}); err != nil {
			return fmt.Errorf("LUN %d by queue %d: %w", d.lun, i, err)
		}
	}
	return nil
}

// create makes the kernel's device. When ctx ends first the unit fails, so that what the kernel has asked of it
// already does not hold up the end.
func (e *engine) create(ctx context.Context, d *device, queues []ublk.QueueConfig) (err error) {
	calledOff := context.AfterFunc(ctx, d.unit.Fail)
	if d.ublk, err = e.control.Create(ctx, ublk.Config{Limits: d.unit.Limits(), Queues: queues}); err != nil {
		return err
	}
	if !calledOff() {
		return errors.Join(ctx.Err(), d.ublk.Stop(context.WithoutCancel(ctx)))
	}
	return nil
}

// watch tells when the kernel refuses to go on with d, which nobody else would notice: its requests just stay away.
func (e *engine) watch(d *device) {
	<-d.ublk.Lost()
	if err := d.ublk.Err(); !errors.Is(err, ublk.ErrStopped) {
		e.log.Error("device is lost: detach it with --force and attach it again", "device", d.ublk.Path(), "err", err)
	}
}

// memory makes what d's requests move their data in, known to every connection.
func (e *engine) memory(d *device) ([]ublk.QueueConfig, error) {
	e.target.registering.Lock()
	defer e.target.registering.Unlock()
	queues, err := e.slices(d)
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

// slices carves a slice for each tag, with keys of its own, so that a wrong STag reaches no other request.
func (e *engine) slices(d *device) ([]ublk.QueueConfig, error) {
	limits := d.unit.Limits()
	var out []ublk.QueueConfig
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
		uq := ublk.QueueConfig{Lane: s.lane, Unit: q}
		for range limits.Depth {
			id, mem, err := e.carve(d, int(limits.MaxTransfer))
			if err != nil {
				return nil, err
			}
			uq.Buffers = append(uq.Buffers, ublk.Buffer{Mem: mem, Region: uint32(id)})
		}
		out = append(out, uq)
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
		if d.ublk.Path() == name || strconv.FormatUint(d.lun, 10) == name {
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
	stop := d.ublk.TryStop
	if force {
		stop = d.ublk.Stop
		d.unit.Fail()
		d.ublk.Fail(syscall.EIO)
		stuck := time.AfterFunc(forceGrace, e.cut)
		defer stuck.Stop()
	}
	if err := stop(ctx); err != nil {
		if errors.Is(err, ublk.ErrBusy) {
			err = fmt.Errorf("%s: %w", d.ublk.Path(), ErrBusy)
		}
		return err
	}
	e.view.Lock()
	delete(e.devices, d.lun)
	e.view.Unlock()
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

// drop frees what d has besides its ublk device. None of its requests is in flight.
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
