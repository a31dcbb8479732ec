package main

import (
	"github.com/urfave/cli/v2"

	"iserblk/cmd/iserblk/worker"
)

func (p *program) workerCommand() *cli.Command {
	return &cli.Command{
		Name:      "worker",
		Usage:     "serve a target; attach starts it",
		ArgsUsage: "TARGET",
		Hidden:    true,
		Action: func(*cli.Context) error {
			if code := worker.Main(p.backend); code != worker.ExitOK {
				return exitStatus(code)
			}
			return nil
		},
	}
}
