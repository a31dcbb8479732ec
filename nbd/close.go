package nbd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Close ends the export: it listens no more, takes no more requests, answers those in flight and closes the connections, those
// of clients that do not take their replies by force after a moment. It waits for the logical unit, which Fail does not hurry: whoever
// cannot wait has the unit fail its requests first. When ctx ends before that, Close may be called again to wait on. After
// it no Buffer is in use.
func (e *Export) Close(ctx context.Context) error {
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return &Error{Op: "close export", Err: ctx.Err()}
	}
	if err := e.close(ctx); err != nil {
		return &Error{Op: "close export", Err: err}
	}
	return nil
}

func (e *Export) close(ctx context.Context) error {
	if e.closed {
		return nil
	}
	e.closing.Store(true)
	e.stopListening()
	conns, err := e.drainAll(ctx)
	if err != nil {
		return err
	}
	if !awaitAll(ctx, conns, drainGrace) {
		if ctx.Err() == nil {
			e.cutStalled(conns)
		}
		if !awaitAll(ctx, conns, 0) {
			return fmt.Errorf("%d requests are with the target: %w", e.Stats().InFlight, ctx.Err())
		}
	}
	for _, h := range e.hubs {
		if err := h.lane.Do(ctx, h.unhook); err != nil {
			return err
		}
	}
	if err := e.awaitListeners(ctx); err != nil {
		return err
	}
	e.closed = true
	return nil
}

// drainAll has every connection end, and lists them.
func (e *Export) drainAll(ctx context.Context) ([]*Conn, error) {
	var all []*Conn
	for _, h := range e.hubs {
		var conns []*Conn
		err := h.lane.Do(ctx, func() {
			conns = slices.Clone(h.conns)
			for _, c := range conns {
				c.drain()
			}
		})
		if err != nil {
			return nil, err // conns may still be written
		}
		all = append(all, conns...)
	}
	return all, nil
}

// cutStalled ends the connections that cannot get rid of their replies, now or when they next cannot.
func (e *Export) cutStalled(conns []*Conn) {
	e.impatient.Store(true)
	for _, c := range conns {
		c.hub.lane.Post(func() {
			if c.blocked {
				c.fail(ErrCut)
			}
		})
	}
}

// awaitAll waits for the end of connections, until ctx is done or, unless it is 0, grace is over.
func awaitAll(ctx context.Context, conns []*Conn, grace time.Duration) bool {
	if grace > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, grace)
		defer cancel()
	}
	for _, c := range conns {
		select {
		case <-c.done:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// hook has the lane serve the hub.
func (h *hub) hook() { h.lane.Add(h) }

// unhook ends that. The only connections there can be came after the export was closed and were never read from.
func (h *hub) unhook() {
	h.closed = true
	for _, c := range slices.Clone(h.conns) {
		c.fail(ErrClosed)
		c.settle()
	}
	h.lane.Remove(h)
}

// forget takes a connection that is over off the list.
func (h *hub) forget(c *Conn) {
	if i := slices.Index(h.conns, c); i >= 0 {
		h.conns = slices.Delete(h.conns, i, i+1)
	}
}

// Why a connection ended, for the log.
func (e *Export) logEnd(c *Conn, client string) {
	<-c.Done()
	switch err := c.Err(); {
	case err == nil:
		e.log.Debug("client has left", "client", client)
	case broken(err):
		e.log.Info("client has gone without a goodbye", "client", client, "err", err)
	case errors.Is(err, ErrClosed):
	default:
		e.log.Warn("connection ended", "client", client, "err", err)
	}
}
