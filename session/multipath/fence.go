package multipath

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"iserblk/session"
)

// fence proves that nothing of the dead nexus can still execute on u. The login with the dead nexus's ISID came first.
//
// LIO answers that login only when the old session's commands have ended, so the login was the fence. SCST answers
// early but holds every command but TEST UNIT READY until then: the INQUIRY and READ CAPACITY of the probe were the
// fence. Both replace a session of the same portal group only: an ISID names another nexus in another group. Any other
// target (tgt closes the old connection and lets its backend finish later) gets a LOGICAL UNIT RESET, whose response
// waits for the unit's tasks of all nexuses (RFC 7143 4.2.3.2).
func (p *Path) fence(ctx context.Context, n *session.Nexus, u *Unit, lu session.LogicalUnit) error {
	if g := group(n); g >= 0 && g == p.group && reinstatementFences(lu) {
		return nil
	}
	return reset(ctx, n, lu)
}

// Fence proves that nothing can still execute on a unit that a process before this one, or a device that was detached
// by force, has left there. reinstated says that every session in question was replaced before by a login with its own
// ISID in its own portal group. n is any nexus. Where that is no proof, the unit is reset, which its other initiators
// notice.
func Fence(ctx context.Context, n *session.Nexus, lu session.LogicalUnit, reinstated bool) error {
	if reinstated && reinstatementFences(lu) {
		return nil
	}
	return reset(ctx, n, lu)
}

func reset(ctx context.Context, n *session.Nexus, lu session.LogicalUnit) error {
	if err := session.ResetLogicalUnit(ctx, n, lu.LUN); err != nil {
		return fmt.Errorf("fence LUN %v: %w", lu.LUN, err)
	}
	return nil
}

// group is the target portal group of a nexus, negative where the target did not say.
func group(n *session.Nexus) int { return n.Negotiated().TargetPortalGroupTag }

// reinstatementFences: the target is known to hold the new nexus back until the old one's tasks have ended.
func reinstatementFences(lu session.LogicalUnit) bool {
	v := strings.TrimSpace(lu.Vendor)
	return v == "LIO-ORG" || v == "SCST_FIO" || v == "SCST_BIO"
}

// judge quarantines a unit that is no longer what was attached, and frees one that is again. The fence follows it.
func (u *Unit) judge(lu session.LogicalUnit, log *slog.Logger) {
	if !u.confirm(lu, log) {
		return
	}
	if u.state.CompareAndSwap(uint32(UnitQuarantined), uint32(UnitServing)) {
		log.Info("unit is itself again", "lun", u.lun.String())
		u.release()
	}
}

// confirm tells whether lu is what was attached, and notes what it has become: larger, or another unit.
func (u *Unit) confirm(lu session.LogicalUnit, log *slog.Logger) bool {
	if err := u.sameUnit(lu); err != nil {
		u.quarantine(err, log)
		return false
	}
	u.grow(lu, log)
	return true
}

func (u *Unit) quarantine(why error, log *slog.Logger) {
	if u.state.CompareAndSwap(uint32(UnitServing), uint32(UnitQuarantined)) {
		log.Error("unit quarantined: nothing is sent to it", "lun", u.lun.String(), "err", why)
		u.queues[0].path.poke() // who looks at it from now on
	}
}
