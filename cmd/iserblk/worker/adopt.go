package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
)

// What a worker that died has left is either taken away (ublk's devices are dead with it) or, where the kernel holds its
// requests back, taken over by the next worker of the target, whoever starts it and for which LUN.

// clearOld takes away what cannot be taken over, and notes what can.
func (s *server) clearOld() {
	old, err := readRecord(s.files) // mostly there is none
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Error("what the worker before has left is not known, and left as it is", "err", err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), forceTimeout)
	defer cancel()
	for _, d := range append(old.Devices, s.orphans(ctx, old.Devices)...) {
		if d.LUN != orphanLUN && s.backend.parked(ctx, d) {
			d.State = StateParked
			s.parked = append(s.parked, d)
			continue
		}
		if who := claims(d.Path); d.LUN == orphanLUN && len(who) > 0 {
			s.log.Error("nobody wrote down which LUN this is, so it is left as it is; once it is free the next worker removes it",
				"device", d.Path, "users", who)
			continue
		}
		err := s.backend.RemoveDevice(ctx, d)
		s.log.Info("cleared what a dead worker left", "device", d.Path, "err", err)
	}
	if len(s.parked) > 0 {
		s.inherit(old.Spec)
	}
}

// parked says whether a device waits for the next worker. Where that cannot be told it may: then nothing is taken away, and
// its record stays.
func (b Backend) parked(ctx context.Context, d Device) bool {
	if b.Parked == nil {
		return false
	}
	parked, err := b.Parked(ctx, d)
	return parked || err != nil
}

// orphanLUN marks a device of which only the kernel knows.
const orphanLUN = ^uint64(0)

// orphans are the devices that no record names.
func (s *server) orphans(ctx context.Context, known []Device) []Device {
	if s.backend.Orphans == nil {
		return nil
	}
	found := s.backend.Orphans(ctx, s.dirs.Run, s.spec.Target)
	found = slices.DeleteFunc(found, func(d Device) bool {
		return slices.ContainsFunc(known, func(k Device) bool { return k.Cookie == d.Cookie })
	})
	for i := range found {
		found[i].LUN = orphanLUN
	}
	return found
}

// removeOrphans is for whoever has seen that the worker of a target died, before it wrote down all that it had made perhaps.
// If there is another by now, that one sees to it.
func removeOrphans(ctx context.Context, f files) error {
	lock, err := f.acquire()
	if errors.Is(err, errLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forceTimeout)
	defer cancel()
	var errs []error
	orphans := Orphans(ctx, f.dir, f.target)
	known, err := readRecord(f)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && len(orphans) > 0 {
		return err // they may be in there
	}
	for _, d := range orphans {
		if len(claims(d.Path)) > 0 {
			continue // whoever claims it knew of it
		}
		if !slices.ContainsFunc(known.Devices, func(k Device) bool { return k.Cookie == d.Cookie }) {
			errs = append(errs, RemoveDevice(ctx, d))
		}
	}
	return errors.Join(errs...)
}

// inherit makes this worker the same initiator, with the same sessions, as the one before: only then do its logins end
// what that one has left at the target.
func (s *server) inherit(old Spec) {
	s.spec.InitiatorName, s.spec.Seed = old.InitiatorName, old.Seed
	s.spec.Queues, s.spec.Depth = old.Queues, old.Depth
	for _, d := range s.parked {
		s.spec.Queues = max(s.spec.Queues, d.Queues)
	}
	s.record.Initiator, s.record.Spec = s.spec.InitiatorName, s.spec.withoutSecrets()
}

// adopt takes over everything that is parked, and returns what of it was asked for. One that cannot be taken over stays
// as it is; that is an error only for who asked for it.
func (s *server) adopt(ctx context.Context, eng Engine, req request) ([]Device, error) {
	var adopted, left []Device
	var errs []error
	for _, old := range s.stillParked() {
		asked := len(req.LUNs) == 0 || slices.Contains(req.LUNs, old.LUN)
		d, err := eng.Adopt(ctx, old)
		switch {
		case err != nil:
			s.log.Error("cannot be taken over", "device", old.Path, "err", err)
			left = append(left, old)
			if asked {
				errs = append(errs, err)
			}
		case asked && !fits(req.Options.Frontend, d.Frontend):
			errs = append(errs, fmt.Errorf("LUN %d: %w as %s, taken over from a worker that died; detach that first", d.LUN, ErrAttached, d.Path))
		case asked:
			adopted = append(adopted, d)
		}
	}
	s.setParked(left)
	_ = s.save()
	return adopted, errors.Join(errs...)
}

func fits(asked, is string) bool { return asked == "" || asked == FrontAuto || asked == is }

// without are the LUNs that are still to be attached; enough says that none is.
func without(luns []uint64, adopted []Device) (rest []uint64, enough bool) {
	if luns == nil {
		return nil, false
	}
	rest = slices.DeleteFunc(slices.Clone(luns), func(lun uint64) bool {
		return slices.ContainsFunc(adopted, func(d Device) bool { return d.LUN == lun })
	})
	return rest, len(rest) == 0
}

func (s *server) stillParked() []Device {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.parked)
}

func (s *server) setParked(left []Device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parked = left
}

// removeParked takes away what could not be taken over: one device, or with all others all of them. done says that this
// was all there was to do.
func (s *server) removeParked(ctx context.Context, req request) (done bool, err error) {
	var left []Device
	var errs []error
	for _, d := range s.stillParked() {
		named := d.Path == req.Device || strconv.FormatUint(d.LUN, 10) == req.Device
		if !named && req.Device != "" {
			left = append(left, d)
			continue
		}
		err := s.removeOneParked(ctx, d, req.Force)
		if err != nil {
			errs = append(errs, err)
			left = append(left, d)
		}
		done = done || named
	}
	s.setParked(left)
	return done, errors.Join(errs...)
}

func (s *server) removeOneParked(ctx context.Context, d Device, force bool) error {
	if !force {
		if err := unused([]Device{d}); err != nil {
			return err
		}
	}
	return s.backend.RemoveDevice(ctx, d)
}

// finish ends the files of a target that is not served any more, but for what the next worker has to know.
func (s *server) finish() {
	if len(s.stillParked()) == 0 {
		s.files.removeAll()
		return
	}
	_ = s.save()
	s.files.leave()
}
