package worker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"iserblk/session"
	"iserblk/session/chap"
	"iserblk/session/pdu"
)

// diagnose finds out what a portal did not say when it refused the first login of all. LIO answers "service unavailable"
// for a target that it does not have, and hangs up without a word where it wants CHAP: whether the target is in its
// list tells which.
func (d *dialer) diagnose(ctx context.Context, portal netip.AddrPort, err error) error {
	hungUp := errors.Is(err, session.ErrHungUp)
	if d.hasLoggedIn() || !hungUp && !errors.Is(err, session.ErrTargetUnavailable) {
		return err
	}
	listed, lerr := d.lists(ctx, portal)
	switch {
	case lerr != nil:
		return err
	case !listed:
		return fmt.Errorf("%w: %s is not among those that 'iserblk discover %v' lists", session.ErrTargetNotFound,
			d.spec.Target, portal)
	case hungUp && d.spec.CHAP.TargetSecret != "":
		return fmt.Errorf("%w: it hung up; without --chap-target-user it need not prove itself", session.ErrUnproven)
	case hungUp && d.spec.CHAP.User == "":
		return fmt.Errorf("%w: %s wants CHAP; give --chap-user and --chap-secret-file", session.ErrAuth, d.spec.Target)
	}
	return err
}

func (d *dialer) hasLoggedIn() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lastGood.IsValid()
}

// lists asks a portal whether it knows the target. The portal need not prove itself for that: nothing is believed but the
// reason of a failure.
func (d *dialer) lists(ctx context.Context, portal netip.AddrPort) (bool, error) {
	p := d.params(pdu.ISID(d.spec.FreshISID()))
	p.CHAP.Target = chap.Credentials{}
	found, err := d.targets(ctx, portal, p)
	return slices.ContainsFunc(found, func(p session.Portal) bool { return p.TargetName == d.spec.Target }), err
}
