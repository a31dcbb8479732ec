package multipath

import (
	"context"
	"errors"
	"fmt"
	"time"

	"iserblk/session"
)

const (
	// admitTimeout bounds the first check of a unit by a path, and with it the wait for a path that is down.
	admitTimeout = 30 * time.Second
	admitPause   = 100 * time.Millisecond
)

// Admit checks that u is what answers at its LUN by the nexus in charge, before u's first request: a unit is found by
// one session and served by others, and those may lead to another portal. The check also waits, at a target that
// holds the commands of a session back until those of the one before it have ended. buf is memory for it that the
// nexus can expose, session.ProbeSize bytes or less. It waits a bounded time for a path that is down.
func (p *Path) Admit(ctx context.Context, u *Unit, buf session.Buffer) error {
	ctx, cancel := context.WithTimeout(ctx, admitTimeout)
	defer cancel()
	for {
		lu, err := session.ProbeBy(ctx, onLane{p}, u.lun, buf)
		switch {
		case err == nil:
			return u.sameUnit(lu)
		case !errors.Is(err, session.ErrNexusLost):
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		case <-time.After(admitPause):
		}
	}
}

// onLane is a session.Carrier over the nexus in charge of a path.
type onLane struct{ p *Path }

// ended closes itself when its command is done.
type ended chan struct{}

// CommandDone implements session.Completer.
func (e ended) CommandDone(*session.Command) { close(e) }

func (l onLane) Carry(ctx context.Context, c *session.Command) error {
	done := make(ended)
	c.Done = done
	if err := l.p.cfg.Lane.Do(context.Background(), func() { l.submit(c) }); err != nil {
		return err
	}
	select {
	case <-done:
	case <-ctx.Done():
		l.p.Cut(ctx.Err()) // there is no other way to get the buffer back soon
		<-done
	}
	return c.Err
}

func (l onLane) submit(c *session.Command) {
	if n := l.p.nexus; n != nil {
		n.Submit(c)
		return
	}
	c.Err = session.ErrNexusLost
	c.Done.CommandDone(c)
}

// Rest needs no help: the lane keeps the nexus alive.
func (l onLane) Rest(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// Target has no name here: the unit's LUN and the path's log say enough.
func (l onLane) Target() string { return "" }
