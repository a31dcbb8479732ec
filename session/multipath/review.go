package multipath

import (
	"context"
	"errors"
	"time"

	"iserblk/session"
)

// How often a quarantined unit is looked at again: soon at first, then ever more rarely.
const (
	reviewMin = time.Second
	reviewMax = 30 * time.Second
)

// errUnitBack is why a path ends a nexus that works: a login and the fence after it let a unit out of quarantine.
var errUnitBack = errors.New("a quarantined unit is itself again")

// inspector looks at units again while one nexus is in charge: at those that say they have changed, and now and then at
// those in quarantine. It is the keeper's; the looks happen on a goroutine of their own, because the keeper has to notice
// the loss of the nexus meanwhile.
type inspector struct {
	path   *Path
	buf    session.Buffer
	ctx    context.Context
	cancel context.CancelFunc
	timer  *time.Timer
	pause  time.Duration
	over   chan struct{} // closed at the end of the look under way, nil when there is none
	again  bool          // something changed during it
}

func (p *Path) newInspector(link *Link) *inspector {
	ctx, cancel := context.WithCancel(context.Background())
	i := &inspector{path: p, buf: link.Scratch, ctx: ctx, cancel: cancel, pause: reviewMin, timer: time.NewTimer(reviewMin)}
	i.rest()
	return i
}

// look begins a look at the units that need one, unless one is under way: then another follows.
func (i *inspector) look() {
	if i.over != nil {
		i.again = true
		return
	}
	units := i.path.suspects()
	if len(units) == 0 {
		i.rest()
		return
	}
	over := make(chan struct{})
	i.over = over
	go func() {
		defer close(over)
		for _, u := range units {
			i.path.review(i.ctx, u, i.buf)
		}
	}()
}

// looked is called when the look is over.
func (i *inspector) looked() {
	i.over = nil
	i.pause = min(2*i.pause, reviewMax)
	if i.again {
		i.again = false
		i.look()
		return
	}
	i.rest()
}

// rest waits for the next look, if there is a unit to look at.
func (i *inspector) rest() {
	i.timer.Stop()
	if len(i.path.quarantined()) > 0 {
		i.timer.Reset(i.pause)
	}
}

// stop ends the inspector. The nexus has given everything back, else it waits until the path is stopped: its memory
// must not be used meanwhile.
func (i *inspector) stop() {
	i.timer.Stop()
	i.cancel()
	if i.over == nil {
		return
	}
	select {
	case <-i.over:
	case <-i.path.quit:
	}
}

// suspects are the units that this path has to look at.
func (p *Path) suspects() []*Unit {
	units := p.quarantined()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.units {
		if u.stale.Swap(false) && u.State() == UnitServing {
			units = append(units, u)
		}
	}
	return units
}

// quarantined are the units in quarantine that are this path's to look at: one path does it for all.
func (p *Path) quarantined() []*Unit {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*Unit
	for _, u := range p.units {
		if u.State() == UnitQuarantined && u.queues[0].path == p {
			out = append(out, u)
		}
	}
	return out
}

// review looks at one unit. What it cannot find out now it leaves as it is.
func (p *Path) review(ctx context.Context, u *Unit, buf session.Buffer) {
	lu, err := session.ProbeBy(ctx, onLane{p}, u.lun, buf)
	switch {
	case missing(err):
		u.quarantine(err, p.cfg.Log)
	case err != nil:
		if !errors.Is(err, session.ErrNexusLost) {
			p.cfg.Log.Warn("look at unit", "lun", u.lun.String(), "err", err)
		}
	case u.State() == UnitQuarantined:
		if u.sameUnit(lu) == nil {
			p.Cut(errUnitBack)
		}
	default:
		u.confirm(lu, p.cfg.Log)
	}
}

// missing: there is no such unit at the target any more, or it has become something else than a disk.
func missing(err error) bool {
	return errors.Is(err, session.ErrNoUnit) || errors.Is(err, session.ErrNotDisk)
}

// poke has the keeper look at the units. It never blocks.
func (p *Path) poke() {
	select {
	case p.pokes <- struct{}{}:
	default:
	}
}
