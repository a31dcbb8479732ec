package main

import (
	"github.com/urfave/cli/v2"

	"iserblk/cmd/iserblk/worker"
)

func (p *program) pathsCommand() *cli.Command {
	return &cli.Command{
		Name:      "paths",
		Usage:     "list the paths of a device",
		ArgsUsage: "DEVICE|TARGET",
		Flags:     []cli.Flag{outputFlag()},
		Action:    p.paths,
	}
}

func (p *program) paths(c *cli.Context) error {
	asJSON, err := format(c)
	if err != nil {
		return err
	}
	args, err := only(c, 1, 1)
	if err != nil {
		return err
	}
	workers, err := p.chosen(c, args)
	if err != nil {
		return err
	}
	paths := workers[0].Paths
	if asJSON {
		if paths == nil {
			paths = []worker.PathStatus{}
		}
		return p.printJSON("paths", paths)
	}
	var rows [][]string
	for _, s := range paths {
		use := "no"
		if s.InUse {
			use = "yes"
		}
		rows = append(rows, []string{s.Portal, s.Source, s.RDMADevice, s.State, use, s.Group, s.LastError})
	}
	return p.table("PORTAL SOURCE RDMA STATE USED GROUP LAST-ERROR", rows)
}
