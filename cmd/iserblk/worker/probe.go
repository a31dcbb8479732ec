package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	"iserblk/session"
	"iserblk/session/pdu"
	"iserblk/session/scsi"
	"iserblk/verbs"
)

// shortArena is address space for the connections of discover and luns.
const shortArena = 64 << 20

// logins is how often a fresh nexus may die before its first answers: tgt takes a command that overtakes its own
// notice of the login for a protocol error, and closes.
const logins = 3

// visit logs in beside every other session of this host and calls f, which drives the nexus itself.
func (d *dialer) visit(ctx context.Context, f func(context.Context, *session.Nexus, session.Buffer) error) (err error) {
	d.registering.RLock()
	defer d.registering.RUnlock()
	region, scratch, err := d.scratch()
	if err != nil {
		return err
	}
	for range logins {
		var free bool
		if free, err = d.visitOnce(ctx, scratch, f); !free {
			return err // the region is never used again
		}
		if !errors.Is(err, session.ErrNexusLost) {
			break
		}
	}
	d.arena.Release(region)
	return err
}

// visitOnce also tells whether scratch is free again.
func (d *dialer) visitOnce(ctx context.Context, scratch session.Buffer, f func(context.Context, *session.Nexus, session.Buffer) error) (free bool, err error) {
	n, err := d.loginTwice(ctx, pdu.ISID(d.spec.FreshISID()))
	if err != nil {
		return true, err
	}
	if err = f(ctx, n, scratch); err == nil {
		_ = session.Logout(ctx, n) // a target that will not say goodbye loses the connection all the same
	}
	return d.abandon(n), err
}

// abandon closes a nexus that nobody else has, and tells whether nothing can touch the memory of its commands any more.
func (d *dialer) abandon(n *session.Nexus) bool {
	if err := n.Abandon(); err != nil {
		d.log.Error("memory is stuck in the RDMA device until this process ends", "err", err)
		return false
	}
	return true
}

// loginTwice repeats a login that the target does not answer in time once: LIO lets one initiator in after the other, and
// a login that was given up may hold up those behind it for a while.
func (d *dialer) loginTwice(ctx context.Context, isid pdu.ISID) (*session.Nexus, error) {
	_, n, err := d.login(ctx, isid)
	if errors.Is(err, session.ErrTimeout) && ctx.Err() == nil {
		d.log.Info("logging in again", "err", err)
		_, n, err = d.login(ctx, isid)
	}
	return n, err
}

// probeAll looks at the LUNs that were asked for, or at every disk of the target that skip does not know. Every LUN
// that was asked for must be a disk.
func probeAll(ctx context.Context, n *session.Nexus, scratch session.Buffer, luns []uint64, skip func(uint64) bool) ([]session.LogicalUnit, error) {
	present, err := session.ReportLUNs(ctx, n, scratch)
	if err != nil {
		return nil, err
	}
	if luns != nil {
		return probeThese(ctx, n, scratch, luns, present)
	}
	var out []session.LogicalUnit
	for _, l := range present {
		number, ok := l.Int()
		if !ok || skip(uint64(number)) {
			continue
		}
		lu, err := session.Probe(ctx, n, l, scratch)
		switch {
		case errors.Is(err, session.ErrNotDisk):
		case err != nil:
			return nil, fmt.Errorf("LUN %d: %w", number, err)
		default:
			out = append(out, lu)
		}
	}
	return out, nil
}

func probeThese(ctx context.Context, n *session.Nexus, scratch session.Buffer, luns []uint64, present []scsi.LUN) ([]session.LogicalUnit, error) {
	known := map[uint64]scsi.LUN{}
	var numbers []string
	for _, l := range present {
		if number, ok := l.Int(); ok {
			known[uint64(number)] = l
			numbers = append(numbers, fmt.Sprint(number))
		}
	}
	var out []session.LogicalUnit
	for _, number := range luns {
		l, ok := known[number]
		if !ok {
			return nil, fmt.Errorf("LUN %d: %w at the target, which has LUN %s", number, ErrNotFound, strings.Join(numbers, ", "))
		}
		lu, err := session.Probe(ctx, n, l, scratch)
		if err != nil {
			return nil, fmt.Errorf("LUN %d: %w", number, err)
		}
		out = append(out, lu)
	}
	return out, nil
}

// shortDialer is for commands that connect, ask and leave.
func shortDialer(spec Spec, log *slog.Logger) (*dialer, func(), error) {
	p, err := newProvider(spec.Provider)
	if err != nil {
		return nil, nil, err
	}
	a, err := verbs.NewArena(shortArena)
	if err != nil {
		return nil, nil, err
	}
	return newDialer(spec, p, a, log), func() { a.Close() }, nil
}

// LUNs lists the logical units of spec's target (Backend.LUNs).
func LUNs(ctx context.Context, spec Spec, log *slog.Logger) ([]LUN, error) {
	d, done, err := shortDialer(spec, log)
	if err != nil {
		return nil, err
	}
	defer done()
	var out []LUN
	err = d.visit(ctx, func(ctx context.Context, n *session.Nexus, scratch session.Buffer) (err error) {
		out, err = listLUNs(ctx, n, scratch)
		return err
	})
	return out, err
}

// listLUNs describes every LUN; what cannot be read of one does not hide the others.
func listLUNs(ctx context.Context, n *session.Nexus, scratch session.Buffer) ([]LUN, error) {
	present, err := session.ReportLUNs(ctx, n, scratch)
	if err != nil {
		return nil, err
	}
	var out []LUN
	for _, l := range present {
		number, ok := l.Int()
		if !ok {
			continue
		}
		lu, err := session.Probe(ctx, n, l, scratch)
		if errors.Is(err, session.ErrNexusLost) {
			return nil, err
		}
		out = append(out, describeLUN(uint64(number), lu, err))
	}
	return out, nil
}

func describeLUN(number uint64, lu session.LogicalUnit, err error) LUN {
	d := LUN{
		LUN: number, Size: lu.Blocks * uint64(lu.BlockSize), BlockSize: lu.BlockSize,
		Vendor: lu.Vendor, Model: lu.Product, Revision: lu.Revision, Serial: lu.Serial, WWN: lu.WWN,
		ReadOnly: lu.ReadOnly, Type: lu.Type.String(),
	}
	if err != nil {
		d.Error = err.Error()
	}
	return d
}

// Discover asks one portal after the other for its targets (Backend.Discover).
func Discover(ctx context.Context, spec Spec, log *slog.Logger) ([]Portal, error) {
	d, done, err := shortDialer(spec, log)
	if err != nil {
		return nil, err
	}
	defer done()
	var failed portalErrors
	for _, portal := range spec.Portals {
		found, err := d.targets(ctx, portal, d.params(pdu.ISID(spec.FreshISID())))
		if err == nil {
			return portalsOf(found, portal.String()), nil
		}
		failed = append(failed, err)
	}
	return nil, failed.one()
}

// targets asks one portal for all it has.
func (d *dialer) targets(ctx context.Context, portal netip.AddrPort, p session.Params) (found []session.Portal, err error) {
	for range 1 + moreLogins {
		c, cerr := d.connect(ctx, portal, true)
		if cerr != nil {
			return nil, cerr
		}
		found, err = session.Discover(ctx, c, p)
		c.Close()
		if err == nil {
			return found, nil
		}
		if !accident(err) {
			break
		}
	}
	return nil, fmt.Errorf("portal %v: %w", portal, err)
}

func portalsOf(found []session.Portal, asked string) []Portal {
	out := make([]Portal, len(found))
	for i, p := range found {
		out[i] = Portal{Target: p.TargetName, Address: p.Address, TPGT: uint16(max(p.Group, 0))}
		if p.Address == "" {
			out[i].Address = asked
		}
	}
	return out
}
