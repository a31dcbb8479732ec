package main

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"iserblk/cmd/iserblk/state"
	"iserblk/cmd/iserblk/worker"
)

const (
	flagInitiator    = "initiator-name"
	flagSource       = "source"
	flagProvider     = "provider"
	flagTimeout      = "timeout"
	flagLoginTimeout = "login-timeout"
)

// connectFlags are those of every command that connects to a portal.
func connectFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: flagInitiator, Usage: "log in as `NAME` instead of the host's iSCSI name"},
		&cli.StringFlag{Name: flagSource, Usage: "leave by the local addresses of `LIST`"},
		&cli.StringFlag{Name: flagProvider, Usage: "use the RDMA provider `NAME`: auto, rdmacore or softroce"},
		&cli.DurationFlag{Name: flagLoginTimeout, Usage: "give one connection and login `TIME`"},
	}, credentialFlags()...)
}

func timeoutFlag(d time.Duration) cli.Flag {
	return &cli.DurationFlag{Name: flagTimeout, Value: d, Usage: "give up after `TIME`"}
}

// spec is what the flags say about a target. target may be empty, for a discovery.
func (p *program) spec(ctx context.Context, c *cli.Context, u targetURL, d state.Dirs) (worker.Spec, error) {
	s := worker.Spec{
		Version: worker.SpecVersion, Target: u.target, Provider: c.String(flagProvider), Verbose: c.Bool(flagVerbose),
		Timeouts: worker.Timeouts{Login: c.Duration(flagLoginTimeout)},
	}
	var err error
	if s.CHAP, err = p.credentials(c, u.target, u.user); err != nil {
		return s, err
	}
	if s.Sources, err = parseSources(c.String(flagSource)); err != nil {
		return s, err
	}
	if s.InitiatorName, err = p.initiatorName(c, d); err != nil {
		return s, err
	}
	if s.Seed, err = d.Seed(); err != nil {
		return s, err
	}
	s.Portals, err = p.resolve(ctx, u.portals)
	return s, err
}

func parseSources(list string) ([]netip.Addr, error) {
	if list == "" {
		return nil, nil
	}
	var all []netip.Addr
	for s := range strings.SplitSeq(list, ",") {
		a, err := netip.ParseAddr(strings.Trim(strings.TrimSpace(s), "[]"))
		if err != nil {
			return nil, badInput("--%s: %q is no address", flagSource, s)
		}
		all = append(all, a.Unmap())
	}
	return all, nil
}

func (p *program) initiatorName(c *cli.Context, d state.Dirs) (string, error) {
	name := c.String(flagInitiator)
	if name == "" {
		return d.InitiatorName(p.root)
	}
	if err := state.CheckName(name); err != nil {
		return "", badInput("--%s: %w", flagInitiator, err)
	}
	return name, nil
}

// log is for what runs in this process. Without --verbose it is for warnings only.
func (p *program) log(c *cli.Context) *slog.Logger {
	level := slog.LevelWarn
	if c.Bool(flagVerbose) {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: level}))
}

// format checks --output, before any work is done.
func format(c *cli.Context) (json bool, err error) {
	f := c.String(flagOutput)
	if !slices.Contains([]string{"table", "json"}, f) {
		return false, badInput("--%s %s: want table or json", flagOutput, f)
	}
	return f == "json", nil
}

// notNegative refuses durations that would mean nothing.
func notNegative(c *cli.Context, names ...string) error {
	for _, n := range names {
		if c.Duration(n) < 0 {
			return badInput("--%s %v: want a time that is not negative", n, c.Duration(n))
		}
	}
	return nil
}
