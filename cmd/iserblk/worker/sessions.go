package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"iserblk/cmd/iserblk/state"
	"iserblk/session"
	"iserblk/session/multipath"
	"iserblk/session/pdu"
)

// A worker that dies leaves sessions at the target, which may go on executing what it has sent. The next one ends them
// by a login with the same initiator name and ISID through the same portal group, also those that it has no use for: it
// may have fewer queues, or go by another portal. What a login cannot prove at this target, or through a portal that is
// out of reach, a LOGICAL UNIT RESET has to. After a worker that has logged out neither is needed.

// ledger is what one target's worker may have at the target, on stable storage from before its first login until after
// its last logout.
type ledger struct {
	Version   int        `json:"version"`
	Initiator string     `json:"initiator"`
	Sessions  []loggedIn `json:"sessions"`
}

// loggedIn is a session as it may be: with this ISID, made through this portal.
type loggedIn struct {
	ISID   state.ISID     `json:"isid"`
	Portal netip.AddrPort `json:"portal"`
}

const ledgerVersion = 1

// errLedger marks a ledger that is there and cannot be made sense of.
var errLedger = errors.New("not a list of sessions of this version")

// ledgerFile is where a target's ledger is, "" when nothing is kept.
func (s Spec) ledgerFile() string {
	if s.KeepDir == "" {
		return ""
	}
	return filepath.Join(s.KeepDir, s.Target+".sessions")
}

// readLedger is empty when every session was logged out.
func readLedger(file string) (ledger, error) {
	var l ledger
	text, err := os.ReadFile(file)
	if file == "" || errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &l)
	}
	if err == nil && l.Version != ledgerVersion {
		err = fmt.Errorf("version %d", l.Version)
	}
	if err != nil {
		return ledger{}, fmt.Errorf("%s: %w: %w", file, errLedger, err)
	}
	return l, nil
}

func (l ledger) write(file string) error {
	if file == "" {
		return nil
	}
	if len(l.Sessions) == 0 {
		if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return state.WriteFile(file, append(text, '\n'))
}

// past is what the workers before this one have left at the target. The engine's mu guards it.
type past struct {
	unclean bool            // one has not logged out
	unknown bool            // what it has left is not known
	left    []loggedIn      // of its sessions, those that could not be ended
	fenced  map[uint64]bool // by LUN; false for a device that was detached by force. nil before anything was looked at
}

// endPast ends the sessions of the workers before this one, and notes down those that this one is about to make.
func (e *engine) endPast(ctx context.Context) error {
	file := e.spec.ledgerFile()
	old, err := readLedger(file)
	e.past = past{unclean: err != nil || len(old.Sessions) > 0, unknown: err != nil, fenced: map[uint64]bool{}}
	if err != nil {
		e.log.Warn("what the worker before has left is not known", "err", err)
	}
	if len(old.Sessions) > 0 {
		e.log.Info("ending the sessions that a worker before this one may have left", "sessions", len(old.Sessions))
		e.past.left = e.target.end(ctx, old)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := e.ledger().write(file); err != nil {
		e.log.Warn("sessions cannot be noted down: after a crash they have to be ended by hand", "err", err)
	}
	return nil
}

// ledger lists every session that this worker may make, by whichever portal, and what it could not end.
func (e *engine) ledger() ledger {
	l := ledger{Version: ledgerVersion, Initiator: e.spec.InitiatorName, Sessions: slices.Clone(e.past.left)}
	for i := range e.spec.Queues {
		for _, p := range e.spec.Portals {
			s := loggedIn{ISID: e.spec.ISID(pathName, i), Portal: p}
			if !slices.Contains(l.Sessions, s) {
				l.Sessions = append(l.Sessions, s)
			}
		}
	}
	return l
}

// settle takes note of the end of all paths: if each has logged out, nothing but what was left before is left now.
func (e *engine) settle(loggedOut bool) {
	begun := e.past.fenced != nil
	if !begun || !loggedOut || slices.Contains(slices.Collect(maps.Values(e.past.fenced)), false) {
		return
	}
	l := ledger{Version: ledgerVersion, Initiator: e.spec.InitiatorName, Sessions: e.past.left}
	if err := l.write(e.spec.ledgerFile()); err != nil {
		e.log.Warn("the list of sessions cannot be removed", "err", err)
	}
}

// fence proves that nothing of a worker before this one, or of a device that was detached by force, can still be carried
// out at the units. Each unit needs that once. The lanes have logged in before.
func (e *engine) fence(ctx context.Context, n *session.Nexus, units []session.LogicalUnit) error {
	for _, lu := range units {
		number, _ := lu.LUN.Int()
		done, known := e.past.fenced[uint64(number)]
		if done || !known && !e.past.unclean {
			continue
		}
		if err := multipath.Fence(ctx, n, lu, !e.past.unknown && len(e.past.left) == 0); err != nil {
			return err
		}
		e.past.fenced[uint64(number)] = true
	}
	return nil
}

// suspect has a unit fenced before it is attached again.
func (e *engine) suspect(lun uint64) { e.past.fenced[lun] = false }

// bereft is suspect for a unit whose worker has certainly died, whatever the ledger says.
func (e *engine) bereft(lun uint64) {
	e.past.unknown = e.past.unknown || !e.past.unclean
	e.suspect(lun)
}

// endTimeout is for one of the sessions that were left. LIO answers when its backend is done with what that one had sent.
const endTimeout = 30 * time.Second

// end ends the sessions of a ledger, those of each portal one after the other, and returns those that it could not.
func (d *dialer) end(ctx context.Context, l ledger) (left []loggedIn) {
	byPortal := map[netip.AddrPort][]loggedIn{}
	for _, s := range l.Sessions {
		byPortal[s.Portal] = append(byPortal[s.Portal], s)
	}
	var mu sync.Mutex
	var ending sync.WaitGroup
	for portal, all := range byPortal {
		ending.Go(func() {
			rest, err := d.as(l.Initiator, portal).endAll(ctx, all)
			if err != nil {
				d.log.Warn("sessions of a worker before this one cannot be ended", "portal", portal, "err", err)
			}
			mu.Lock()
			defer mu.Unlock()
			left = append(left, rest...)
		})
	}
	ending.Wait()
	return left
}

// as is a dialer for one portal that logs in by another initiator name.
func (d *dialer) as(initiator string, portal netip.AddrPort) *dialer {
	spec := d.spec
	spec.InitiatorName, spec.Portals = initiator, []netip.AddrPort{portal}
	return newDialer(spec, d.provider, d.arena, d.log)
}

// endAll stops at the first session that it cannot end, because the portal is out of reach.
func (d *dialer) endAll(ctx context.Context, all []loggedIn) (rest []loggedIn, err error) {
	for i, s := range all {
		if err := d.endOne(ctx, pdu.ISID(s.ISID)); err != nil {
			return all[i:], err
		}
	}
	return nil, nil
}

// endOne puts a session of its own in the place of an old one and logs out.
func (d *dialer) endOne(ctx context.Context, isid pdu.ISID) error {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	n, err := d.loginTwice(ctx, isid)
	if err != nil {
		return err
	}
	err = session.Logout(ctx, n)
	d.abandon(n)
	return err
}
