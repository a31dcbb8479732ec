package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"iserblk/cmd/iserblk/doctor"
	"iserblk/cmd/iserblk/worker"
)

func (p *program) doctorCommand() *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "look for what is missing on this machine, and say what mends it",
		ArgsUsage: "[PORTAL|iser://PORTAL/NAME]",
		Flags:     append([]cli.Flag{outputFlag(), timeoutFlag(30 * time.Second)}, connectFlags()...),
		Action:    p.doctor,
	}
}

func (p *program) doctor(c *cli.Context) error {
	asJSON, err := format(c)
	if err != nil {
		return err
	}
	args, err := only(c, 0, 1)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(c.Context)
	defer stop()
	ctx, cancel := withTimeout(ctx, c)
	defer cancel()
	portal, u, err := p.patient(ctx, args)
	if err != nil {
		return err
	}
	results := doctor.Examine(ctx, p.machine(c, u), portal)
	if asJSON {
		err = p.printJSON("checks", results)
	} else {
		err = p.printResults(results)
	}
	if err == nil && !doctor.Healthy(results) {
		return exitStatus(worker.ExitGeneric)
	}
	return err
}

// patient is the portal that is asked about, the first of a URL's.
func (p *program) patient(ctx context.Context, args []string) (at netip.AddrPort, u targetURL, err error) {
	if len(args) == 0 {
		return at, u, nil
	}
	if strings.Contains(args[0], "://") {
		u, err = parseURL(args[0])
	} else {
		u.portals, err = parsePortals(args[0])
	}
	if err != nil {
		return at, u, err
	}
	addrs, err := p.resolve(ctx, u.portals[:1])
	if err != nil {
		return at, u, err
	}
	return addrs[0], u, nil
}

func (p *program) machine(c *cli.Context, u targetURL) doctor.Machine {
	m := doctor.Real(p.root)
	if p.backend.Devices != nil {
		m.Provider = func(ctx context.Context) error {
			_, err := p.backend.Devices(ctx, c.String(flagProvider))
			return err
		}
	}
	if p.backend.ChooseProvider != nil {
		m.Choose = func(dst netip.Addr) (string, string, error) {
			return p.backend.ChooseProvider(c.String(flagProvider), sourceFor(c, dst), dst)
		}
	}
	if p.backend.Discover != nil {
		m.Reach = func(ctx context.Context, at netip.AddrPort) error { return p.reach(ctx, c, u, at) }
	}
	return m
}

// sourceFor is the first of --source that is of the address's family; what is wrong with it shows elsewhere.
func sourceFor(c *cli.Context, dst netip.Addr) netip.Addr {
	all, _ := parseSources(c.String(flagSource))
	for _, a := range all {
		if a.Is4() == dst.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// reach asks the portal for its targets. One that wants other credentials has been reached too.
func (p *program) reach(ctx context.Context, c *cli.Context, u targetURL, at netip.AddrPort) error {
	d, err := dirs(c).Ensure()
	if err != nil {
		return err
	}
	u.portals = []portal{{at.Addr().String(), at.Port()}}
	s, err := p.spec(ctx, c, u, d)
	if err != nil {
		return err
	}
	_, err = p.backend.Discover(ctx, s, p.log(c))
	if code := worker.ExitCode(err); code == worker.ExitAuth || code == worker.ExitNotFound {
		return nil
	}
	return err
}

func (p *program) printResults(results []doctor.Result) error {
	var b strings.Builder
	for _, r := range results {
		fmt.Fprintf(&b, "%-4s  %s: %s\n", r.State, r.Check, r.Detail)
		if r.Fix != "" {
			fmt.Fprintf(&b, "      fix: %s\n", r.Fix)
		}
	}
	return p.print(b.String())
}
