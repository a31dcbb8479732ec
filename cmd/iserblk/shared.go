package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"iserblk/cmd/iserblk/worker"
)

// checkShared refuses to share memory with clients of what cannot.
func checkShared(c *cli.Context) error {
	if f := c.String(flagFrontend); c.IsSet(flagShared) && f != worker.FrontAuto && f != worker.FrontUblk {
		return badInput("--%s goes with --%s %s", flagShared, flagFrontend, worker.FrontUblk)
	}
	return nil
}

// sharedFiles are the files of --shared-memory.
func sharedFiles(c *cli.Context) ([]worker.SharedFile, error) {
	if !c.IsSet(flagShared) {
		return nil, nil
	}
	var files []worker.SharedFile
	for name := range strings.SplitSeq(c.String(flagShared), ",") {
		if name == "" {
			return nil, badInput("--%s %s: a file without a name", flagShared, c.String(flagShared))
		}
		path, err := filepath.Abs(name)
		if err != nil {
			return nil, badInput("--%s: %w", flagShared, err)
		}
		f, err := worker.StatShared(path)
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", flagShared, err)
		}
		if slices.ContainsFunc(files, func(o worker.SharedFile) bool { return o.Device == f.Device && o.Inode == f.Inode }) {
			return nil, badInput("--%s: %s twice", flagShared, path)
		}
		files = append(files, f)
	}
	return files, nil
}
