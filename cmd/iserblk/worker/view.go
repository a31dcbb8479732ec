package worker

import (
	"context"
	"time"

	"iserblk/session/multipath"
)

// statusPatience bounds what Status waits for a lane: it answers between any two turns.
const statusPatience = time.Second

// Status is a snapshot of the engine. It waits for no I/O.
func (e *engine) Status(ctx context.Context) Status {
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	s := Status{
		Target: e.spec.Target, Initiator: e.spec.InitiatorName, Queues: len(e.lanes), Started: e.started,
	}
	s.Provider, s.Because = describeProvider(e.provider)
	path := e.pathStatus(ctx, &s)
	s.Paths = []PathStatus{path}
	for _, d := range e.sorted() {
		s.Devices = append(s.Devices, e.describe(d))
	}
	return s
}

// pathStatus sums the lanes up: the path is as good as its worst session.
func (e *engine) pathStatus(ctx context.Context, s *Status) PathStatus {
	p := PathStatus{Name: pathName, State: StateLive, InUse: true}
	for _, l := range e.lanes {
		if l.path == nil {
			continue
		}
		ps := l.path.Status()
		p.ISIDs = append(p.ISIDs, l.link.isid.String())
		p.Counters.Losses += ps.Losses
		p.Portal = ps.Portal
		if p.Since.Before(ps.Since) {
			p.Since = ps.Since
		}
		if ps.LastErr != "" {
			p.LastError = ps.LastErr
		}
		if st := pathState(ps.State); st != StateLive {
			p.State = st
		}
		l.addTo(ctx, &p)
	}
	s.Failovers = p.Counters.Losses
	return p
}

func pathState(s multipath.State) string {
	switch s {
	case multipath.StateUp:
		return StateLive
	case multipath.StateReconnecting:
		return StateConnecting
	}
	return StateFailed
}

// addTo adds what one session knows.
func (l *serving) addTo(ctx context.Context, p *PathStatus) {
	if info, ok := l.link.info(); ok {
		p.Source = info.Local.Addr().String()
		p.RDMADevice, p.NetDev, p.PathMTU = info.Device.Name, info.Device.NetDev, info.Device.PathMTU
	}
	c, err := l.path.Counters(ctx)
	if err != nil {
		return
	}
	n := c.Negotiated
	p.TPGT = uint16(max(n.TargetPortalGroupTag, 0))
	p.Negotiated = Negotiated{
		ImmediateData: n.ImmediateData, InitialR2T: true,
		FirstBurst: n.FirstBurstLength, MaxBurst: n.MaxBurstLength,
		InitiatorRecvData: n.InitiatorRecvDataSegmentLength, TargetRecvData: n.TargetRecvDataSegmentLength,
		Commands: c.MaxCommands, AuthMethod: "None",
	}
	if n.Algorithm != 0 {
		p.Negotiated.AuthMethod = "CHAP (" + n.Algorithm.String() + ")"
	}
	p.Counters.Commands += c.Nexus.Commands
	p.Counters.Aborts += c.Nexus.Aborted
	p.Counters.InFlight += uint64(c.Nexus.Outstanding)
	p.Counters.Errors += c.Queues.Errors
	p.Counters.FencedOps += c.Queues.Replays
	p.Counters.Logins += 1 + l.path.Status().Losses
}

// describe is the public view of d.
func (e *engine) describe(d *device) Device {
	id, limits := d.unit.Identity(), d.unit.Limits()
	out := Device{
		Path: d.front.path(), LUN: d.lun, Size: limits.Size, BlockSize: limits.BlockSize,
		ReadOnly: limits.ReadOnly, WriteCache: limits.WriteCache, State: e.deviceState(d), WWN: id.WWN, Vendor: id.Vendor,
		Model: id.Product, Serial: id.Serial, Depth: int(limits.Depth), Queues: len(d.queues), Counters: d.front.counters(),
		DeadTimeout: d.opts.DeadTimeout,
	}
	d.front.describe(&out)
	return out
}

func (e *engine) deviceState(d *device) string {
	switch d.unit.State() {
	case multipath.UnitFailing:
		return StateFailed
	case multipath.UnitQuarantined:
		return StateQuarantined
	}
	for _, l := range e.lanes {
		if l.path == nil {
			continue
		}
		switch s := l.path.Status(); {
		case s.GaveUp:
			return StateFailed
		case s.State != multipath.StateUp:
			return StateQueueing
		}
	}
	return StateLive
}
