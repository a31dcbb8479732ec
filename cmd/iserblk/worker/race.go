package worker

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"iserblk/iser"
)

// headStart is how long a portal may take to answer before the next one is tried beside it. One that is silent would
// hold up a failover for all of connectTimeout.
const headStart = 300 * time.Millisecond

// race is one attempt to connect to the first of several portals.
type race struct {
	conn   *iser.Conn // of the winner; nil when none has answered
	portal netip.AddrPort
	failed []error          // of those that have said no
	losers []netip.AddrPort // who they are
	done   chan struct{}    // closed when the slower ones are gone
}

// runner is the result of one connect.
type runner struct {
	portal netip.AddrPort
	conn   *iser.Conn
	err    error
}

// race connects to the portals in order, to the next when one has failed or is slow. As soon as one has answered the
// others are called off: only one may log in. Call wait before anything is changed that a connect uses.
func (d *dialer) race(ctx context.Context, portals []netip.AddrPort) *race {
	ctx, cancel := context.WithCancel(ctx)
	r := &race{done: make(chan struct{})}
	results := make(chan runner, len(portals))
	running := r.run(portals, results, func(p netip.AddrPort) {
		c, err := d.connect(ctx, p, false)
		results <- runner{p, c, err}
	})
	cancel()
	go func() {
		defer close(r.done)
		for range running {
			if late := <-results; late.conn != nil {
				late.conn.Close()
			}
		}
	}()
	return r
}

// run returns how many have not arrived when it is decided.
func (r *race) run(portals []netip.AddrPort, results <-chan runner, connect func(netip.AddrPort)) (running int) {
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-next.C:
			if len(portals) > 0 {
				go connect(portals[0])
				portals, running = portals[1:], running+1
				next.Reset(headStart)
			}
		case a := <-results:
			running--
			if a.err == nil {
				r.conn, r.portal = a.conn, a.portal
				return running
			}
			r.failed, r.losers = append(r.failed, a.err), append(r.losers, a.portal)
			if running == 0 && len(portals) == 0 {
				return 0
			}
			next.Reset(0)
		}
	}
}

// wait returns when no connect runs any more.
func (r *race) wait() { <-r.done }

// lost tells whether a portal has said no.
func (r *race) lost(p netip.AddrPort) bool { return slices.Contains(r.losers, p) }
