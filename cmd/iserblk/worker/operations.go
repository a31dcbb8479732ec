package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The bounds of what the server waits for.
const (
	politeTimeout = 30 * time.Second // for a close that was asked for by signal
	forceTimeout  = 15 * time.Second // for an engine that is forced
	tokenTimeout  = 3 * time.Second  // before a forced operation cancels the one that is under way
	logoutTimeout = 10 * time.Second // for an engine without devices
)

// take waits for the token. The context it returns also ends when a forced operation wants the token; release gives
// the token back.
func (s *server) take(ctx context.Context) (context.Context, func(), error) {
	s.count(1)
	if err := s.takeToken(ctx); err != nil {
		s.count(-1)
		return nil, nil, err
	}
	op, cancel := context.WithCancelCause(ctx)
	s.setCancel(cancel)
	return op, func() {
		cancel(nil)
		s.setCancel(nil)
		s.giveToken()
	}, nil
}

// count adds n to those who have the token or want it.
func (s *server) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting += n
}

func (s *server) giveToken() {
	s.count(-1)
	s.op <- struct{}{}
}

func (s *server) takeToken(ctx context.Context) error {
	select {
	case <-s.op:
	case <-s.left:
		return errLeaving
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-s.left: // it came back from who has closed the engine
		s.op <- struct{}{}
		return errLeaving
	default:
		return nil
	}
}

// setCancel says how to end the operation that has the token.
func (s *server) setCancel(cancel context.CancelCauseFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel = cancel
}

// takeByForce gives an operation that is under way a moment to end, then cancels it.
func (s *server) takeByForce(ctx context.Context) (context.Context, func(), error) {
	for range 2 {
		soon, cancel := context.WithTimeout(ctx, tokenTimeout)
		_, release, err := s.take(soon)
		cancel()
		if err == nil {
			op, cancel := context.WithTimeout(ctx, forceTimeout)
			return op, func() { cancel(); release() }, nil
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			return nil, nil, err
		}
		s.cancelOp(errEndedByForce)
	}
	return nil, nil, fmt.Errorf("%w: an operation under way cannot be cancelled", ErrSilent)
}

// Why an operation was ended before it was done.
var (
	errEndedByForce  = errors.New("ended by a forced detach")
	errEndedBySignal = errors.New("ended by a signal")
)

// cancelOp ends the operation that has the token.
func (s *server) cancelOp(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		s.cancel(why)
	}
}

// attach makes devices, and takes them away again when the client did not stay to hear of them.
func (s *server) attach(ctx context.Context, w *wire, req request) {
	op, release, err := s.take(ctx)
	if err != nil {
		w.conn.Close()
		return
	}
	defer release()
	tell := func(line string) { _ = w.send(reply{Progress: line}) }
	s.progress.fn.Store(&tell)
	devices, made, err := s.open(op, req)
	s.progress.fn.Store(nil)
	if err != nil {
		if why := context.Cause(op); errors.Is(why, errEndedByForce) || errors.Is(why, errEndedBySignal) {
			err = fmt.Errorf("%w (%w)", why, err)
		}
		s.log.Error("attach failed", "err", err)
		s.answerAndLeave(w, failure(err))
		return
	}
	unsaved := s.save()
	if err = context.Cause(op); err == nil && slices.ContainsFunc(made, func(d Device) bool { return d.Cookie != "" }) {
		err = unsaved
	}
	if err == nil {
		err = w.send(reply{Done: true, Devices: devices}) // its client may go from here on
	}
	if err != nil {
		s.undo(made)
		s.answerAndLeave(w, failure(err))
	}
}

// open logs in if this is the first attach, takes over what a dead worker has left, and attaches the rest of what was
// asked for. It returns all that was asked for, and what it made of it.
func (s *server) open(ctx context.Context, req request) (all, made []Device, err error) {
	s.mu.Lock()
	eng := s.engine
	s.mu.Unlock()
	if eng == nil {
		if eng, err = s.backend.NewEngine(ctx, s.spec, req.Options, s.log); err != nil {
			return nil, nil, err
		}
		s.mu.Lock()
		s.engine = eng
		s.mu.Unlock()
	}
	adopted, err := s.adopt(ctx, eng, req)
	if err != nil {
		return nil, nil, err
	}
	luns, enough := without(req.LUNs, adopted)
	if enough {
		return adopted, nil, nil
	}
	made, err = eng.Attach(ctx, luns, req.Options)
	if errors.Is(err, ErrNotFound) && luns == nil && len(adopted) > 0 {
		err = nil // there is nothing else
	}
	all = append(adopted, made...)
	slices.SortFunc(all, func(a, b Device) int { return cmp.Compare(a.LUN, b.LUN) })
	return all, made, err
}

func (s *server) undo(devices []Device) {
	ctx, cancel := context.WithTimeout(context.Background(), forceTimeout)
	defer cancel()
	for _, d := range devices {
		if err := s.engine.Detach(ctx, d.Path, true); err != nil {
			s.log.Error("device cannot be taken away again", "device", d.Path, "err", err)
		}
	}
}

func (s *server) detach(ctx context.Context, w *wire, req request) {
	take := s.take
	if req.Force {
		take = s.takeByForce
	}
	op, release, err := take(ctx)
	switch {
	case errors.Is(err, ErrSilent):
		_ = w.send(failure(err))
		return
	case err != nil:
		w.conn.Close()
		return
	}
	defer release()
	done, err := s.removeParked(op, req)
	if err == nil && !done {
		err = s.remove(op, req)
	}
	if err != nil {
		s.log.Warn("detach failed", "device", req.Device, "force", req.Force, "err", err)
		_ = s.save()
		s.answerAndLeave(w, failure(err))
		return
	}
	s.log.Info("detached", "device", req.Device, "force", req.Force)
	s.answerAndLeave(w, reply{Done: true})
}

// remove detaches one device, or all of them together.
func (s *server) remove(ctx context.Context, req request) error {
	switch {
	case s.engine == nil && req.Device == "":
		return nil // it was about to log in
	case s.engine == nil:
		return fmt.Errorf("%s: %w", req.Device, ErrNotFound)
	}
	if !req.Force {
		if err := s.checkUnused(ctx, req.Device); err != nil {
			return err
		}
	}
	if req.Device == "" {
		return s.engine.Close(ctx, req.Force)
	}
	return s.engine.Detach(ctx, req.Device, req.Force)
}

// checkUnused fails with ErrBusy and names the users of a device, or of any device if which is "".
func (s *server) checkUnused(ctx context.Context, which string) error {
	for _, d := range s.engine.Status(ctx).Devices {
		if which != "" && which != d.Path && which != strconv.FormatUint(d.LUN, 10) {
			continue
		}
		if who := Users(d.Path); len(who) > 0 {
			return fmt.Errorf("%s is %w: %s; stop that first, or take it away with --force", d.Path, ErrBusy,
				strings.Join(who, ", "))
		}
	}
	return nil
}

// answerAndLeave sends the reply. If no device is left and nobody else waits to attach one, the engine is closed and
// the files are gone before the client hears of it. The caller has the token.
func (s *server) answerAndLeave(w *wire, r reply) {
	r.Leaving = s.retire()
	if !r.Leaving {
		_ = s.save()
	}
	_ = w.send(r)
	if r.Leaving {
		s.leave(nil)
	}
}

// retire closes an engine without devices and removes the files. It says whether it did.
func (s *server) retire() bool {
	s.mu.Lock()
	eng, others := s.engine, s.waiting > 1
	s.mu.Unlock()
	if eng != nil && !eng.Empty() || others {
		return false
	}
	if eng != nil {
		ctx, cancel := context.WithTimeout(context.Background(), logoutTimeout)
		defer cancel()
		if err := eng.Close(ctx, true); err != nil {
			s.log.Warn("logout failed", "err", err)
		}
	}
	s.finish()
	return true
}

// leave ends the server. The token is never given back to those who wait: they see that it has left.
func (s *server) leave(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.left:
	default:
		s.result = err
		close(s.left)
	}
}

// leaveIfUnused ends a server whose first client went without attaching anything. It does not count before it has the token:
// a detach that could leave need not stay for it.
func (s *server) leaveIfUnused(ctx context.Context) {
	if s.takeToken(ctx) != nil {
		return
	}
	s.count(1)
	defer s.giveToken()
	if s.retire() {
		s.leave(nil)
	}
}

// stop is what a signal asks for. When devices are in use it refuses, unless it is forced.
func (s *server) stop(ctx context.Context, force bool) {
	s.cancelOp(errEndedBySignal)
	ctx, cancel := context.WithTimeout(ctx, politeTimeout)
	defer cancel()
	op, release, err := s.takeByForce(ctx)
	if err != nil {
		if force {
			s.leave(fmt.Errorf("stopped without closing the devices: %w", err))
		}
		return
	}
	defer release()
	if err := s.remove(op, request{Force: force}); err != nil && s.engine != nil {
		s.log.Error("not stopped; the next signal forces it", "err", err)
		if force {
			s.leave(fmt.Errorf("stopped without closing the devices: %w", err))
		}
		return
	}
	s.finish()
	s.leave(nil)
}
