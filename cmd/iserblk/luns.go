package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"iserblk/cmd/iserblk/worker"
)

// askFunc is Backend.Discover or Backend.LUNs.
type askFunc[T any] func(ctx context.Context, s worker.Spec, log *slog.Logger) ([]T, error)

func (p *program) lunsCommand() *cli.Command {
	return &cli.Command{
		Name:      "luns",
		Usage:     "list the LUNs of a target",
		ArgsUsage: "iser://PORTAL[,PORTAL...]/NAME",
		Flags:     append([]cli.Flag{outputFlag(), timeoutFlag(time.Minute)}, connectFlags()...),
		Action:    p.luns,
	}
}

func (p *program) luns(c *cli.Context) error {
	asJSON, err := format(c)
	if err != nil {
		return err
	}
	args, err := only(c, 1, 1)
	if err != nil {
		return err
	}
	u, err := parseURL(args[0])
	if err != nil {
		return err
	}
	found, err := inProcess(p, c, u, p.backend.LUNs)
	if err != nil {
		return err
	}
	if u.hasLUN {
		if found, err = pick(found, u.lun); err != nil {
			return err
		}
	}
	if asJSON {
		return p.printJSON("luns", found)
	}
	var rows [][]string
	for _, l := range found {
		rows = append(rows, lunRow(l))
	}
	return p.table("LUN SIZE BLOCK VENDOR MODEL WWN", rows)
}

func pick(all []worker.LUN, lun uint64) ([]worker.LUN, error) {
	for _, l := range all {
		if l.LUN == lun {
			return []worker.LUN{l}, nil
		}
	}
	return nil, fmt.Errorf("LUN %d: %w", lun, worker.ErrNotFound)
}

func lunRow(l worker.LUN) []string {
	number := strconv.FormatUint(l.LUN, 10)
	if l.Error != "" {
		return []string{number, "", "", l.Vendor, l.Model, "(" + l.Error + ")"}
	}
	return []string{number, size(l.Size), strconv.Itoa(int(l.BlockSize)), l.Vendor, l.Model, l.WWN}
}

// withTimeout bounds a command by its --timeout; zero is no bound.
func withTimeout(ctx context.Context, c *cli.Context) (context.Context, context.CancelFunc) {
	d := c.Duration(flagTimeout)
	if d == 0 {
		return context.WithCancel(ctx)
	}
	cause := fmt.Errorf("not done within --%s %v: %w", flagTimeout, d, context.DeadlineExceeded)
	return context.WithTimeoutCause(ctx, d, cause)
}

// causeOf tells why a context ended where err says only that it did.
func causeOf(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case cause == nil || errors.Is(err, cause):
		return err
	case errors.Is(cause, errInterrupted), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w (%w)", cause, err)
	}
	return err
}
