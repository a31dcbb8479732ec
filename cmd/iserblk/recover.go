package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"iserblk/cmd/iserblk/state"
	"iserblk/cmd/iserblk/worker"
)

func (p *program) recoverCommand() *cli.Command {
	flags := []cli.Flag{timeoutFlag(90 * time.Second)}
	return &cli.Command{
		Name:      "recover",
		Usage:     "serve the devices again that workers which died have left with I/O waiting, and print their paths",
		ArgsUsage: "[DEVICE|TARGET]",
		Flags:     append(flags, credentialFlags()...),
		Action:    p.recover,
	}
}

// recover starts a worker for each target that has parked devices. One that fails does not keep the others from it.
func (p *program) recover(c *cli.Context) error {
	args, err := only(c, 0, 1)
	if err != nil {
		return err
	}
	d, err := dirs(c).Ensure()
	if err != nil {
		return err
	}
	ctx, stop := interruptible(c.Context)
	defer stop()
	dead, err := p.toRecover(ctx, d, args)
	if err != nil {
		return err
	}
	var errs []error
	for _, w := range dead {
		if err := p.recoverTarget(ctx, c, d, w); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", w.Target, err))
		}
	}
	return errors.Join(errs...)
}

// toRecover are the workers that the argument means, all without one.
func (p *program) toRecover(ctx context.Context, d state.Dirs, args []string) ([]worker.Worker, error) {
	if len(args) == 1 {
		w, _, err := worker.Find(ctx, d, args[0])
		if err != nil {
			return nil, err
		}
		if _, ok := w.Recoverable(); !ok {
			return nil, fmt.Errorf("%s: no device of it waits for a worker: %w", args[0], worker.ErrNotFound)
		}
		return []worker.Worker{w}, nil
	}
	all, err := worker.List(ctx, d)
	var dead []worker.Worker
	for _, w := range all {
		if _, ok := w.Recoverable(); ok {
			dead = append(dead, w)
		}
	}
	return dead, err
}

func (p *program) recoverTarget(ctx context.Context, c *cli.Context, d state.Dirs, w worker.Worker) error {
	ctx, cancel := withTimeout(ctx, c)
	defer cancel()
	spec, _ := w.Recoverable()
	creds, err := p.credentials(c, w.Target, spec.CHAP.User)
	if err != nil {
		return err
	}
	spec.CHAP = creds
	g := p.startProgress("recovering "+w.Target, c.Bool(flagVerbose))
	devices, err := worker.Attach(ctx, worker.AttachRequest{
		Dirs: d, Spec: spec, LUNs: []uint64{}, Progress: g.tell,
		Options: worker.AttachOptions{NoModprobe: true},
	})
	g.end()
	if err != nil {
		return causeOf(ctx, err)
	}
	p.printPaths(devices)
	return nil
}
