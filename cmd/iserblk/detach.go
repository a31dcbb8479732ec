package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"iserblk/cmd/iserblk/worker"
)

const flagForce = "force"

func (p *program) detachCommand() *cli.Command {
	return &cli.Command{
		Name:      "detach",
		Usage:     "take a device away, or all of a target's",
		ArgsUsage: "DEVICE|TARGET|TARGET/LUN",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: flagForce, Aliases: []string{"f"}, Usage: "even if it is in use or its worker is dead: fail its I/O"},
			&cli.DurationFlag{Name: flagTimeout, Value: time.Minute, Usage: "let requests under way end for `TIME`"},
		},
		Action: p.detach,
	}
}

func (p *program) detach(c *cli.Context) error {
	args, err := only(c, 1, 1)
	if err != nil {
		return err
	}
	if c.Duration(flagTimeout) <= 0 {
		return badInput("--%s %v: want a time", flagTimeout, c.Duration(flagTimeout))
	}
	ctx, stop := interruptible(c.Context)
	defer stop()
	d, err := absolute(dirs(c))
	if err != nil {
		return err
	}
	err = worker.Detach(ctx, worker.DetachRequest{
		Backend: p.backend, Dirs: d, Name: args[0], Force: c.Bool(flagForce), Timeout: c.Duration(flagTimeout),
		Warn: p.note,
	})
	return causeOf(ctx, err)
}
