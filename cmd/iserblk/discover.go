package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"iserblk/cmd/iserblk/worker"
)

func (p *program) discoverCommand() *cli.Command {
	return &cli.Command{
		Name:      "discover",
		Usage:     "list the targets of portals",
		ArgsUsage: "PORTAL...",
		Flags:     append([]cli.Flag{outputFlag(), timeoutFlag(time.Minute)}, connectFlags()...),
		Action:    p.discover,
	}
}

func (p *program) discover(c *cli.Context) error {
	asJSON, err := format(c)
	if err != nil {
		return err
	}
	args, err := only(c, 1, -1)
	if err != nil {
		return err
	}
	u := targetURL{}
	for _, a := range args {
		portals, err := parsePortals(a)
		if err != nil {
			return err
		}
		u.portals = append(u.portals, portals...)
	}
	found, err := inProcess(p, c, u, p.backend.Discover)
	if err != nil {
		return err
	}
	if asJSON {
		return p.printJSON("portals", found)
	}
	var b strings.Builder
	for _, portal := range found {
		fmt.Fprintf(&b, "%s,%d %s\n", portal.Address, portal.TPGT, portal.Target)
	}
	return p.print(b.String())
}

// inProcess does what needs no worker: it asks a target something and is done.
func inProcess[T any](p *program, c *cli.Context, u targetURL, ask askFunc[T]) ([]T, error) {
	if err := notNegative(c, flagTimeout, flagLoginTimeout); err != nil {
		return nil, err
	}
	ctx, stop := interruptible(c.Context)
	defer stop()
	ctx, cancel := withTimeout(ctx, c)
	defer cancel()
	d, err := dirs(c).Ensure()
	if err != nil {
		return nil, err
	}
	spec, err := p.spec(ctx, c, u, d)
	if err != nil {
		return nil, err
	}
	g := p.startProgress("asking "+u.portals[0].String(), false)
	found, err := ask(ctx, spec, p.log(c))
	g.end()
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: %w: the target shows us nothing; check that it lets %s in", u.portals[0],
			worker.ErrNotFound, spec.InitiatorName)
	}
	return found, nil
}
