package main

import (
	"path/filepath"
	"strconv"

	"github.com/urfave/cli/v2"

	"iserblk/cmd/iserblk/state"
	"iserblk/cmd/iserblk/worker"
)

func (p *program) listCommand() *cli.Command {
	return &cli.Command{
		Name:   "list",
		Usage:  "list the attached devices",
		Flags:  []cli.Flag{outputFlag()},
		Action: p.list,
	}
}

// listed is a device with what its worker knows.
type listed struct {
	worker.Device
	Target string `json:"target"`
	Portal string `json:"portal"`
	PID    int    `json:"pid"`
	Worker string `json:"worker"` // the worker's state
}

func (p *program) list(c *cli.Context) error {
	asJSON, err := format(c)
	if err != nil {
		return err
	}
	if _, err := only(c, 0, 0); err != nil {
		return err
	}
	workers, err := p.workers(c)
	if err != nil {
		return err
	}
	all := []listed{}
	for _, w := range workers {
		all = append(all, devicesOf(w)...)
	}
	if asJSON {
		return p.printJSON("devices", all)
	}
	if len(all) == 0 {
		return nil
	}
	var rows [][]string
	for _, l := range all {
		rows = append(rows, l.row())
	}
	return p.table("DEVICE SIZE LUN STATE PORTAL TARGET PID", rows)
}

// devicesOf lists a worker's devices; one without any is listed without, so that it is seen.
func devicesOf(w worker.Worker) []listed {
	base := listed{Target: w.Target, Portal: portalInUse(w), PID: w.PID, Worker: w.State}
	base.State = w.State
	if len(w.Devices) == 0 {
		return []listed{base}
	}
	var all []listed
	for _, d := range w.Devices {
		l := base
		l.Device = d
		all = append(all, l)
	}
	return all
}

func (l listed) row() []string {
	r := []string{l.Path, "", "", l.State, l.Portal, l.Target, strconv.Itoa(l.PID)}
	if l.Path != "" {
		r[1], r[2] = size(l.Size), strconv.FormatUint(l.LUN, 10)
	}
	return r
}

func portalInUse(w worker.Worker) string {
	for _, path := range w.Paths {
		if path.InUse {
			return path.Portal
		}
	}
	if len(w.Portals) > 0 {
		return w.Portals[0]
	}
	return ""
}

func (p *program) workers(c *cli.Context) ([]worker.Worker, error) {
	d, err := absolute(dirs(c))
	if err != nil {
		return nil, err
	}
	ctx, stop := interruptible(c.Context)
	defer stop()
	return worker.List(ctx, d)
}

// absolute is state.Dirs.Ensure without making anything.
func absolute(d state.Dirs) (state.Dirs, error) {
	var err error
	d.Run, err = filepath.Abs(d.Run)
	return d, err
}
