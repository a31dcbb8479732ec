package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"iserblk/cmd/iserblk/demo"
	"iserblk/cmd/iserblk/worker"
)

const (
	flagStay    = "stay"
	flagSize    = "size"
	flagPortals = "portals"
)

func (p *program) demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "show it all on this machine: a target, a failover and verified data, without RDMA hardware or privilege",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: flagSize, Value: 256, Usage: "make the LUN `N` MiB large; it lies in memory"},
			&cli.StringFlag{Name: flagPortals, Value: "127.0.0.1:3260,127.0.0.2:3260", Usage: "serve the target at `LIST`, two addresses of this machine"},
			&cli.BoolFlag{Name: flagStay, Usage: "leave the LUN's socket running until Ctrl-C"},
			&cli.StringFlag{Name: flagProvider, Value: "softroce", Usage: "use the RDMA provider `NAME` at both ends"},
			outputFlag(),
		},
		Action: p.demo,
	}
}

// demoPortals takes two addresses: less would show no failover.
func demoPortals(list string) (portals []netip.AddrPort, err error) {
	for s := range strings.SplitSeq(list, ",") {
		at, err := netip.ParseAddrPort(strings.TrimSpace(s))
		if err != nil {
			return nil, badInput("--%s %s: want ADDRESS:PORT,ADDRESS:PORT", flagPortals, list)
		}
		portals = append(portals, at)
	}
	if len(portals) != 2 || portals[0] == portals[1] {
		return nil, badInput("--%s %s: want two portals", flagPortals, list)
	}
	return portals, nil
}

// maxDemo is more than a demonstration needs and less than a machine lacks.
const maxDemo = 64 << 10

func (p *program) demo(c *cli.Context) error {
	asJSON, err := format(c)
	if err != nil {
		return err
	}
	if _, err := only(c, 0, 0); err != nil {
		return err
	}
	if n := c.Int(flagSize); n < 1 || n > maxDemo {
		return badInput("--%s %d: want 1 to %d", flagSize, n, maxDemo)
	}
	portals, err := demoPortals(c.String(flagPortals))
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	acceptor, err := worker.NewAcceptor(c.String(flagProvider))
	if err != nil {
		return err
	}
	ctx, stop := interruptible(c.Context)
	defer stop()
	o := demo.Options{
		Exe: exe, Out: p.stdout, Terminal: p.terminal && isTerminal(os.Stdout), Provider: c.String(flagProvider),
		Size: int64(c.Int(flagSize)) << 20, Stay: c.Bool(flagStay), Acceptor: acceptor, Portals: portals,
	}
	if asJSON {
		o.Out, o.Terminal = nil, false
	}
	report, err := demo.Run(ctx, o)
	switch {
	case errors.Is(err, context.Canceled):
		return causeOf(ctx, err)
	case err != nil:
		return err
	case asJSON:
		return p.printJSON("demo", report)
	}
	return nil
}
