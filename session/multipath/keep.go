package multipath

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"iserblk/internal/lane"
	"iserblk/session"
)

const (
	reconnectMin = 50 * time.Millisecond
	reconnectMax = 3 * time.Second
	// attemptTimeout bounds one attempt to connect, log in, check and fence. LIO answers a reinstating login only
	// when its backend has finished what the old nexus started.
	attemptTimeout = 30 * time.Second
	logoutTimeout  = 3 * time.Second
)

// install hands link's nexus to the lane, which resumes what is parked. It waits for the lane whatever happens, since
// its turns are short and a nexus must not have two owners. A nexus that died unnoticed is refused: it would never
// report its loss.
func (p *Path) install(link *Link) error {
	n := link.Nexus
	n.OnLost = p.lost
	var dead error
	err := p.cfg.Lane.Do(context.Background(), func() {
		if dead = n.Cause(); dead == nil {
			p.takeOver(n, link.Portal)
		}
	})
	if err = errors.Join(err, dead); err == nil {
		p.group = group(n)
	}
	return err
}

func (p *Path) takeOver(n *session.Nexus, portal string) {
	p.nexus, p.failing = n, false
	p.setStatus(StateUp, portal, nil)
	p.stopExpiry()
	p.cfg.Lane.Add(n)
	p.runTick()
	for _, q := range p.queues {
		q.fenced()
		q.resume()
	}
}

// lost is called on the lane, once, when the nexus has failed: from now on requests park.
func (p *Path) lost(cause error) {
	p.losses.Add(1)
	n := p.nexus
	p.nexus, p.failing = nil, false
	stop(p.ticker)
	p.stopExpiry()
	p.setStatus(StateReconnecting, "", cause)
	p.expireLater()
	p.down <- n // room for one; there is one nexus at a time
}

// expireLater bounds the wait of what is parked, unless that is done already.
func (p *Path) expireLater() {
	if t := p.cfg.NoPathTimeout; t >= 0 && p.expiry == nil {
		p.expiry = p.cfg.Lane.AfterFunc(t, p.expire)
	}
}

func (p *Path) stopExpiry() {
	stop(p.expiry)
	p.expiry = nil
}

// stop ends a timer that may never have been started.
func stop(t *lane.Timer) {
	if t != nil {
		t.Stop()
	}
}

// expire gives the waiting requests up.
func (p *Path) expire() {
	p.expiry, p.failing = nil, true
	p.setGaveUp(true)
	for _, q := range p.queues {
		q.failParked()
	}
}

func (p *Path) runTick() {
	if p.nexus == nil {
		return
	}
	next := p.nexus.Tick(time.Now())
	if p.nexus != nil { // Tick may have found it lost
		p.ticker = p.cfg.Lane.AfterFunc(next, p.tick)
	}
}

// keep is the goroutine behind a path: it waits for the loss of the nexus and brings the next one.
func (p *Path) keep(link *Link) {
	defer close(p.done)
	for link != nil {
		link = p.next(link)
	}
}

// next serves link until it is lost and returns its successor, nil when the path is stopped.
func (p *Path) next(link *Link) *Link {
	lostEvents := link.Lost
	inspector := p.newInspector(link)
	for {
		select {
		case <-p.quit:
			p.retire(link)
			inspector.stop()
			return nil
		case <-p.pokes:
			inspector.look()
		case <-inspector.timer.C:
			inspector.look()
		case <-inspector.over:
			inspector.looked()
		case n := <-p.notices:
			p.cfg.Log.Warn("sense from unit", "lun", n.LUN.String(), "sense", n.Sense.String())
		case err, ok := <-lostEvents:
			if !ok {
				lostEvents = nil
				continue
			}
			n := link.Nexus
			p.cfg.Lane.Post(func() { n.ConnectionLost(err) })
		case n := <-p.down:
			p.cfg.Log.Warn("path lost", "portal", link.Portal, "cause", n.Cause())
			p.bury(n)
			inspector.stop()
			return p.reconnect()
		}
	}
}

// bury waits until the dead nexus has given everything back, or forces it to, and takes it off the lane.
func (p *Path) bury(n *session.Nexus) {
	deadline := time.Now().Add(session.DrainTimeout)
	for !p.drained(n) && time.Now().Before(deadline) {
		time.Sleep(2 * time.Millisecond)
	}
	// Destroying the connection ends every access to our memory, drained or not.
	_ = p.cfg.Lane.Do(context.Background(), func() { p.cfg.Lane.Remove(n) })
	if err := n.Close(); err != nil {
		p.cfg.Log.Error("close connection", "err", err)
		if !n.Drained() {
			// The device may still write to the buffers of what it holds. Those requests never end: the lesser evil.
			p.cfg.Log.Error("requests are stuck in the RDMA device until this process ends")
			return
		}
	}
	// Whatever was not drained completes now.
	_ = p.cfg.Lane.Do(context.Background(), n.Closed)
}

func (p *Path) drained(n *session.Nexus) (yes bool) {
	_ = p.cfg.Lane.Do(context.Background(), func() { yes = n.Drained() })
	return yes
}

// reconnect tries until there is a checked and fenced nexus in charge, nil when the path is stopped.
func (p *Path) reconnect() *Link {
	for pause := reconnectMin; !p.stopping(); {
		link, err := p.attempt()
		if err == nil {
			p.cfg.Log.Info("path is back", "portal", link.Portal)
			return link
		}
		if p.stopping() {
			break
		}
		p.setStatus(StateReconnecting, "", err)
		p.cfg.Log.Warn("reconnect", "err", err, "next", pause)
		if p.rest(pause/2 + rand.N(pause)) {
			pause = reconnectMin
		} else {
			pause = min(2*pause, reconnectMax)
		}
	}
	p.setStatus(StateClosed, "", nil)
	return nil
}

func (p *Path) stopping() bool {
	select {
	case <-p.quit:
		return true
	default:
		return false
	}
}

// rest waits for d, until the path is stopped or until Config.Await says that it need not wait any longer, which it
// reports.
func (p *Path) rest(d time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	awaited := make(chan struct{})
	go func() {
		defer close(awaited)
		if p.cfg.Await == nil {
			<-ctx.Done()
			return
		}
		p.cfg.Await(ctx)
	}()
	select {
	case <-p.quit:
		cancel()
		<-awaited
	case <-awaited:
	}
	return ctx.Err() == nil
}

// attempt makes one nexus ready to take over: logged in, every unit known again, the old nexus fenced.
func (p *Path) attempt() (*Link, error) {
	ctx, cancel := context.WithTimeout(context.Background(), attemptTimeout)
	defer cancel()
	go func() {
		select {
		case <-p.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	link, err := p.cfg.Dial(ctx)
	if err != nil {
		return nil, err
	}
	err = WhileAlive(ctx, link.Lost, func(ctx context.Context) error { return p.readmit(ctx, link) })
	if err == nil {
		err = p.install(link)
	}
	if err != nil {
		return nil, errors.Join(err, link.Nexus.Abandon())
	}
	return link, nil
}

// readmit checks every unit and fences the dead nexus, before anything of ours is sent again.
func (p *Path) readmit(ctx context.Context, link *Link) error {
	p.mu.Lock()
	units := append([]*Unit(nil), p.units...)
	p.mu.Unlock()
	for _, u := range units {
		if u.State() == UnitFailing {
			continue
		}
		lu, err := session.Probe(ctx, link.Nexus, u.lun, link.Scratch)
		if missing(err) {
			u.quarantine(err, p.cfg.Log) // the target's other units need not wait for it
			continue
		}
		if err != nil {
			return fmt.Errorf("check LUN %v: %w", u.lun, err)
		}
		u.judge(lu, p.cfg.Log)
		if err := p.fence(ctx, link.Nexus, u, lu); err != nil {
			return err
		}
	}
	return nil
}

// Stop logs the nexus out and ends the path. Every request must have ended. It tells whether the target has agreed; if
// not, it may still have the session.
func (p *Path) Stop() bool {
	p.once.Do(func() { close(p.quit) })
	<-p.done
	return p.loggedOut.Load()
}

// retire ends a nexus that is in charge: a clean logout, bounded.
func (p *Path) retire(link *Link) {
	n := link.Nexus
	ctx, cancel := context.WithTimeout(context.Background(), logoutTimeout)
	defer cancel()
	answered := make(chan struct{}, 1)
	_ = p.cfg.Lane.Do(ctx, func() {
		if p.nexus == n {
			n.Logout(func(err error) {
				p.loggedOut.Store(err == nil)
				answered <- struct{}{}
			})
			stop(p.ticker)
			p.runTick()
		} else {
			answered <- struct{}{}
		}
	})
	select {
	case <-answered:
	case err := <-link.Lost: // the target has hung up, as it should
		p.cfg.Log.Debug("logged out", "portal", link.Portal, "end", err)
	case <-ctx.Done():
	}
	_ = p.cfg.Lane.Do(context.Background(), func() {
		p.nexus = nil
		stop(p.ticker)
		p.stopExpiry()
		n.OnLost = nil
		n.ConnectionLost(ErrStopped)
	})
	p.bury(n)
	p.setStatus(StateClosed, "", nil)
}

// Why recheck ends a nexus.
var (
	errUnitsChanged = errors.New("the target has other units now")
	errUnfenced     = errors.New("a unit has returned that this nexus has not fenced")
)

// recheck has every unit looked at again and fenced, by a new nexus, before anything more is sent. It is for the lane.
func (p *Path) recheck(why error) {
	if p.nexus != nil {
		p.nexus.ConnectionLost(why)
	}
}

// Cut ends the nexus in charge; the path connects again. Any goroutine may call it.
func (p *Path) Cut(cause error) {
	p.cfg.Lane.Post(func() {
		if p.nexus != nil {
			p.nexus.ConnectionLost(cause)
		}
	})
}
