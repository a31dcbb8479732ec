package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"iserblk/cmd/iserblk/state"
	"iserblk/cmd/iserblk/worker"
)

const (
	flagFrontend       = "frontend"
	flagQueues         = "queues"
	flagDepth          = "depth"
	flagReadOnly       = "read-only"
	flagForeground     = "foreground"
	flagNoPathTimeout  = "no-path-timeout"
	flagCommandTimeout = "command-timeout"
	flagNopInterval    = "nop-interval"
	flagNopTimeout     = "nop-timeout"
	flagSpin           = "spin"
	flagNoModprobe     = "no-modprobe"
	flagDeadTimeout    = "dead-timeout"
	flagListen         = "listen"
	flagTLSCert        = "tls-cert"
	flagTLSKey         = "tls-key"
	flagTLSClientCA    = "tls-client-ca"
	flagNoTLS          = "no-tls"
	flagShared         = "shared-memory"
)

func (p *program) attachCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: flagFrontend, Value: worker.FrontAuto, Usage: "make the device by `WAY`: ublk or nbd (block devices), export (an NBD server), auto (ublk, else nbd)"},
		&cli.BoolFlag{Name: flagNoModprobe, Usage: "load no kernel module"},
		&cli.StringFlag{Name: flagShared, Usage: "ublk: read and write in place what clients have in the memory of `FILES`, a list on tmpfs or hugetlbfs"},
		&cli.DurationFlag{Name: flagDeadTimeout, Value: time.Minute, Usage: "when the worker dies, let I/O wait for the next one for `TIME`, or for ever: -1s; ublk knows only that, and fails I/O unless given"},
		&cli.StringFlag{Name: flagListen, Usage: "export: serve at `ADDRESS`, unix:PATH or tcp:HOST:PORT, instead of at a socket in the run directory"},
		&cli.StringFlag{Name: flagTLSCert, Usage: "export: the server's certificate and what vouches for it, in `FILE` (PEM)"},
		&cli.StringFlag{Name: flagTLSKey, Usage: "export: the certificate's key in `FILE` (PEM)"},
		&cli.StringFlag{Name: flagTLSClientCA, Usage: "export: let in only clients with a certificate by an authority in `FILE` (PEM)"},
		&cli.BoolFlag{Name: flagNoTLS, Usage: "export: serve TCP to everybody, in the clear"},
		&cli.IntFlag{Name: flagQueues, Usage: "use `N` queues, each with a session and a thread"},
		&cli.IntFlag{Name: flagDepth, Usage: "allow `N` requests in flight on each queue"},
		&cli.BoolFlag{Name: flagReadOnly, Usage: "refuse writes"},
		&cli.BoolFlag{Name: flagForeground, Usage: "serve in this process until a signal or the last detach"},
		&cli.GenericFlag{Name: flagNoPathTimeout, Value: &patience{time.Minute}, Usage: "without a path fail I/O after `TIME`; 0 fails it at once, forever holds it back"},
		&cli.DurationFlag{Name: flagCommandTimeout, Usage: "abort a command that takes the target longer than `TIME`"},
		&cli.DurationFlag{Name: flagNopInterval, Usage: "ping a target that has been silent for `TIME`"},
		&cli.DurationFlag{Name: flagNopTimeout, Usage: "give a path up when a ping is not answered within `TIME`"},
		&cli.DurationFlag{Name: flagSpin, Usage: "look for answers for up to `TIME` before sleeping, unless given as long as pays on this machine; -1s never does it"},
		timeoutFlag(90 * time.Second),
	}
	return &cli.Command{
		Name:      "attach",
		Usage:     "make block devices of LUNs and print their paths",
		ArgsUsage: "iser://PORTAL[,PORTAL...]/NAME[/LUN]",
		Flags:     append(flags, connectFlags()...),
		Action:    p.attach,
	}
}

func (p *program) attach(c *cli.Context) error {
	args, err := only(c, 1, 1)
	if err != nil {
		return err
	}
	if err := checkAttachFlags(c); err != nil {
		return err
	}
	u, err := parseURL(args[0])
	if err != nil {
		return err
	}
	d, err := dirs(c).Ensure()
	if err != nil {
		return err
	}
	var luns []uint64
	if u.hasLUN {
		luns = []uint64{u.lun}
	}
	if c.Bool(flagForeground) {
		return p.attachHere(c, u, d, luns)
	}
	return p.attachByWorker(c, u, d, luns)
}

func checkAttachFlags(c *cli.Context) error {
	if !slices.Contains(worker.Frontends, c.String(flagFrontend)) {
		return badInput("--%s %s: want auto, ublk, nbd or export", flagFrontend, c.String(flagFrontend))
	}
	if err := checkExportFlags(c); err != nil {
		return err
	}
	if err := checkShared(c); err != nil {
		return err
	}
	if err := checkDeadTimeout(c); err != nil {
		return err
	}
	if q := c.Int(flagQueues); c.IsSet(flagQueues) && (q < 1 || q > worker.MaxQueues()) {
		return badInput("--%s %d: want 1 to %d: one for each processor, and %d at most", flagQueues, q, worker.MaxQueues(), worker.QueueLimit)
	}
	if d := c.Int(flagDepth); c.IsSet(flagDepth) && (d < 1 || d > maxDepth) {
		return badInput("--%s %d: want 1 to %d", flagDepth, d, maxDepth)
	}
	return notNegative(c, flagTimeout, flagLoginTimeout, flagCommandTimeout, flagNopInterval, flagNopTimeout)
}

// maxDepth is the most that a ublk device has (linux/ublk_cmd.h: UBLK_MAX_QUEUE_DEPTH).
const maxDepth = 4096

func (p *program) attachByWorker(c *cli.Context, u targetURL, d state.Dirs, luns []uint64) error {
	ctx, stop := interruptible(c.Context)
	defer stop()
	ctx, cancel := withTimeout(ctx, c)
	defer cancel()
	spec, opts, err := p.attachSpec(ctx, c, u, d)
	if err != nil {
		return err
	}
	g := p.startProgress("attaching "+u.target, c.Bool(flagVerbose))
	joined := false
	devices, err := worker.Attach(ctx, worker.AttachRequest{
		Dirs: d, Spec: spec, LUNs: luns, Options: opts, Progress: g.tell, Joining: func() { joined = true },
	})
	g.end()
	if err != nil {
		return causeOf(ctx, err)
	}
	if joined {
		p.noteJoining(c)
	}
	p.noteDeadTimeout(c, devices)
	p.printPaths(devices)
	return nil
}

func (p *program) attachHere(c *cli.Context, u targetURL, d state.Dirs, luns []uint64) error {
	notes := p.isolate(d, namedPaths(c)...)
	ready := func(devices []worker.Device) {
		p.noteDeadTimeout(c, devices)
		p.printPaths(devices)
	}
	spec, opts, err := p.attachSpec(c.Context, c, u, d)
	if err != nil {
		return err
	}
	return worker.Foreground(c.Context, worker.ForegroundOptions{
		Backend: p.backend, Dirs: d, Spec: spec, LUNs: luns, Attach: opts, Log: p.stderr, Notes: notes,
		Timeout: c.Duration(flagTimeout), Ready: ready,
	})
}

func (p *program) attachSpec(ctx context.Context, c *cli.Context, u targetURL, d state.Dirs) (worker.Spec, worker.AttachOptions, error) {
	opts := worker.AttachOptions{
		Frontend: c.String(flagFrontend), ReadOnly: c.Bool(flagReadOnly), NoModprobe: c.Bool(flagNoModprobe),
		DeadTimeout: deadTimeout(c),
	}
	var err error
	if opts.Shared, err = sharedFiles(c); err != nil {
		return worker.Spec{}, opts, err
	}
	if len(opts.Shared) > 0 {
		opts.Frontend = worker.FrontUblk // no other can
	}
	if opts.Export, err = exportOptions(c); err != nil {
		return worker.Spec{}, opts, err
	}
	s, err := p.spec(ctx, c, u, d)
	s.Queues, s.Depth = c.Int(flagQueues), c.Int(flagDepth)
	s.Spin = c.Duration(flagSpin)
	s.Timeouts.NoPath, s.Timeouts.Command = c.Generic(flagNoPathTimeout).(*patience).Duration, c.Duration(flagCommandTimeout)
	s.Timeouts.NopIdle, s.Timeouts.NopWait = c.Duration(flagNopInterval), c.Duration(flagNopTimeout)
	return s, opts, err
}

// ofTheDevice are the options that hold for one attach, whoever serves the target.
var ofTheDevice = []string{
	flagFrontend, flagReadOnly, flagTimeout, flagVerbose, flagNoModprobe, flagDeadTimeout, flagListen, flagTLSCert,
	flagTLSKey, flagTLSClientCA, flagNoTLS, flagShared,
}

// noteJoining names the options that come too late.
func (p *program) noteJoining(c *cli.Context) {
	var late []string
	for _, n := range c.LocalFlagNames() {
		if !slices.Contains(ofTheDevice, n) {
			late = append(late, "--"+n)
		}
	}
	if len(late) > 0 {
		p.note("the target is served already: " + strings.Join(late, ", ") + " of its first attach stay in force")
	}
}

func (p *program) printPaths(devices []worker.Device) {
	var b strings.Builder
	for _, dev := range devices {
		b.WriteString(dev.Path + "\n")
	}
	if err := p.print(b.String()); err != nil {
		p.note("attached, but the paths cannot be printed: " + err.Error() + "; see iserblk list")
	}
}
