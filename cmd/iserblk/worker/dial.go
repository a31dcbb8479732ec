package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"iserblk/iser"
	"iserblk/session"
	"iserblk/session/chap"
	"iserblk/session/multipath"
	"iserblk/session/pdu"
	"iserblk/verbs"
)

const (
	// pathName is the part of the ISIDs that names the way to the target: whichever portal is in use, it is the same
	// session that moves there, so that the target ends the one before it.
	pathName = "path0"

	// connectTimeout bounds the connection to one portal, so that a silent one does not use up the whole login.
	connectTimeout = 10 * time.Second
	loginTimeout   = 15 * time.Second
	maxRedirects   = 3
	// moreLogins is how often a login is repeated that failed by an accident of the target's (see accident).
	moreLogins = 3
	// ackTimeout makes the transport give a dead peer up after about half a second of silence in all.
	ackTimeout = 67 * time.Millisecond
	retryCount = 6
)

// dialer makes nexuses with one target.
type dialer struct {
	spec     Spec
	provider verbs.Provider
	arena    *verbs.Arena
	log      *slog.Logger

	// registering keeps regions from being carved between a connection's registration and its use, which would leave
	// it without their keys.
	registering sync.RWMutex
	mu          sync.Mutex
	lastGood    netip.AddrPort
}

func newDialer(spec Spec, p verbs.Provider, a *verbs.Arena, log *slog.Logger) *dialer {
	return &dialer{spec: spec, provider: p, arena: a, log: log}
}

// portals lists the portals to try, the last that worked first.
func (d *dialer) portals() []netip.AddrPort {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]netip.AddrPort, 0, len(d.spec.Portals)+1)
	if d.lastGood.IsValid() {
		out = append(out, d.lastGood)
	}
	for _, p := range d.spec.Portals {
		if p != d.lastGood {
			out = append(out, p)
		}
	}
	return out
}

// login connects to the first portal that lets us in.
func (d *dialer) login(ctx context.Context, isid pdu.ISID) (*iser.Conn, *session.Nexus, error) {
	var failed portalErrors
	for left := d.portals(); len(left) > 0 && (len(failed) == 0 || ctx.Err() == nil); {
		r := d.race(ctx, left)
		failed = append(failed, r.failed...)
		if r.conn == nil {
			break
		}
		c, n, err := d.loginAgain(ctx, r, isid)
		r.wait()
		if err == nil {
			return c, n, nil
		}
		failed = append(failed, err)
		left = slices.DeleteFunc(left, func(p netip.AddrPort) bool { return p == r.portal || r.lost(p) })
	}
	return nil, nil, failed.one()
}

// loginAgain repeats a login that failed by accident.
func (d *dialer) loginAgain(ctx context.Context, r *race, isid pdu.ISID) (*iser.Conn, *session.Nexus, error) {
	c, n, err := d.loginOver(ctx, r.conn, r.portal, isid, maxRedirects)
	for range moreLogins {
		if !accident(err) {
			break
		}
		d.log.Info("logging in again", "err", err)
		c, n, err = d.loginAt(ctx, r.portal, isid, maxRedirects)
	}
	return c, n, err
}

// accident tells that the same login, made again, most likely succeeds: its answer came without its data, as one in a
// hundred of LIO's does on Linux 7.2, or tgt was overtaken.
func accident(err error) bool {
	return errors.Is(err, iser.ErrDataLength) || errors.Is(err, session.ErrOvertaken)
}

func (d *dialer) loginAt(ctx context.Context, portal netip.AddrPort, isid pdu.ISID, redirects int) (*iser.Conn, *session.Nexus, error) {
	c, err := d.connect(ctx, portal, false)
	if err != nil {
		return nil, nil, err
	}
	return d.loginOver(ctx, c, portal, isid, redirects)
}

// loginOver closes c when it fails.
func (d *dialer) loginOver(ctx context.Context, c *iser.Conn, portal netip.AddrPort, isid pdu.ISID, redirects int) (*iser.Conn, *session.Nexus, error) {
	n, err := session.Login(ctx, c, d.params(isid))
	if err == nil {
		d.mu.Lock()
		d.lastGood = portal
		d.mu.Unlock()
		return c, n, nil
	}
	c.Close()
	err = d.diagnose(ctx, portal, err)
	if moved := new(session.RedirectError); errors.As(err, &moved) && redirects > 0 {
		if to, perr := redirectAddr(moved.Address); perr == nil {
			return d.loginAt(ctx, to, isid, redirects-1)
		}
	}
	return nil, nil, fmt.Errorf("portal %v: %w", portal, err)
}

// redirectAddr parses a TargetAddress without its tag; the port is optional (RFC 7143 13.8).
func redirectAddr(s string) (netip.AddrPort, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap, nil
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return netip.AddrPortFrom(a, 3260), err
}

func (d *dialer) connect(ctx context.Context, portal netip.AddrPort, discovery bool) (*iser.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return iser.Dial(ctx, d.provider, iser.Options{
		Source: d.source(portal), Target: portal, Arena: d.arena, Discovery: discovery,
		AckTimeout: ackTimeout, RetryCount: retryCount,
	})
}

// source is the first configured source of the portal's address family.
func (d *dialer) source(portal netip.AddrPort) netip.Addr {
	for _, a := range d.spec.Sources {
		if a.Is4() == portal.Addr().Is4() {
			return a
		}
	}
	return netip.Addr{}
}

func (d *dialer) params(isid pdu.ISID) session.Params {
	t := d.spec.Timeouts
	p := session.Params{
		InitiatorName: d.spec.InitiatorName, TargetName: d.spec.Target, ISID: isid,
		CommandTimeout: t.Command, NOPInterval: t.NopIdle, NOPTimeout: t.NopWait, LoginTimeout: t.Login,
	}
	c := d.spec.CHAP
	p.CHAP.Own = chap.Credentials{Name: c.User, Secret: secret(c.Secret)}
	p.CHAP.Target = chap.Credentials{Name: c.TargetUser, Secret: secret(c.TargetSecret)}
	p.CHAP.Algorithms, _ = chap.ParseAlgorithms(strings.Join(c.Algorithms, ","))
	return p
}

func secret(s Secret) chap.Secret {
	if s == "" {
		return chap.Secret{}
	}
	return chap.NewSecret([]byte(s.Reveal()))
}

// portalErrors holds why each portal failed.
type portalErrors []error

func (p portalErrors) one() error {
	if len(p) == 1 {
		return p[0]
	}
	return p
}

// Error is one line.
func (p portalErrors) Error() string {
	s := make([]string, len(p))
	for i, err := range p {
		s[i] = err.Error()
	}
	return "no portal lets us in: " + strings.Join(s, "; ")
}

// Unwrap gives every cause to errors.Is and errors.As.
func (p portalErrors) Unwrap() []error { return p }

// linkState is the connection that one lane's path uses now.
type linkState struct {
	d       *dialer
	isid    pdu.ISID
	region  verbs.RegionID
	scratch session.Buffer

	mu   sync.Mutex
	conn *iser.Conn

	ports []string // that were up before the last dial, or have not gone down since
}

// lane prepares the dialling of lane i's sessions.
func (d *dialer) lane(i int) (*linkState, error) {
	region, scratch, err := d.scratch()
	if err != nil {
		return nil, err
	}
	return &linkState{d: d, isid: pdu.ISID(d.spec.ISID(pathName, i)), region: region, scratch: scratch}, nil
}

// scratch carves memory for commands of the control side.
func (d *dialer) scratch() (verbs.RegionID, session.Buffer, error) {
	id, err := d.arena.Carve(session.ProbeSize, verbs.AccessRemote)
	if err != nil {
		return 0, session.Buffer{}, err
	}
	return id, session.Buffer{Mem: d.arena.Mem(id), Region: uint32(id)}, nil
}

// dial is the path's multipath.Dialer.
func (l *linkState) dial(ctx context.Context) (*multipath.Link, error) {
	l.d.registering.RLock()
	defer l.d.registering.RUnlock()
	l.ports = l.d.activePorts()
	c, n, err := l.d.login(ctx, l.isid)
	if err != nil {
		return nil, err
	}
	l.missShared(c.Knows)
	l.mu.Lock()
	l.conn = c
	l.mu.Unlock()
	return &multipath.Link{Nexus: n, Scratch: l.scratch, Lost: lossesOf(c), Portal: c.Info().Remote.String()}, nil
}

const (
	portPoll = 50 * time.Millisecond
	// portSettle is what the network takes from the port's report to routes that work.
	portSettle = 20 * time.Millisecond
)

// await is the path's multipath.Config.Await: it returns when a port has come up since the last dial, or ctx ends.
func (l *linkState) await(ctx context.Context) {
	tick := time.NewTicker(portPoll)
	defer tick.Stop()
	for {
		now := l.d.activePorts()
		if hasNew(now, l.ports) {
			time.Sleep(portSettle)
			return
		}
		l.ports = now // one that has gone counts as new when it comes back
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func hasNew(now, before []string) bool {
	return slices.ContainsFunc(now, func(p string) bool { return !slices.Contains(before, p) })
}

func (d *dialer) activePorts() []string {
	if w, ok := d.provider.(verbs.PortWatcher); ok {
		return w.ActivePorts()
	}
	return nil
}

// lossesOf passes on the events that end a connection; a port that lost its link does not: it may come back before
// the transport gives up, and the NOP timer decides.
func lossesOf(c *iser.Conn) <-chan error {
	lost := make(chan error, 1)
	go func() {
		defer close(lost)
		for e := range c.Events() {
			if err := fatal(e); err != nil {
				lost <- err
				return
			}
		}
	}()
	return lost
}

func fatal(e verbs.Event) error {
	what := ""
	switch e.Kind {
	case verbs.EventDisconnected:
		what = "the target ended the connection"
	case verbs.EventDeviceGone:
		what = "the RDMA device is gone"
	case verbs.EventQPError:
		what = "the RDMA device reports a queue pair error"
	default:
		return nil
	}
	if e.Err != nil {
		return fmt.Errorf("%s: %w", what, e.Err)
	}
	return errors.New(what)
}

// sync gives the current connection the keys of regions that were carved since. One that is dead needs none: its
// successor registers everything.
func (l *linkState) sync() error {
	l.mu.Lock()
	c := l.conn
	l.mu.Unlock()
	if c == nil {
		return nil
	}
	if err := c.Sync(); !errors.Is(err, verbs.ErrClosed) {
		return err
	}
	return nil
}

// info describes the connection in use, false before the first.
func (l *linkState) info() (iser.Info, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return iser.Info{}, false
	}
	return l.conn.Info(), true
}
