package main

import (
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
	_, err := sharedFiles(c)
	return err
}

// sharedFiles are the files of --shared-memory, by absolute path.
func sharedFiles(c *cli.Context) ([]string, error) {
	if !c.IsSet(flagShared) {
		return nil, nil
	}
	var files []string
	for file := range strings.SplitSeq(c.String(flagShared), ",") {
		if file == "" {
			return nil, badInput("--%s %s: a file without a name", flagShared, c.String(flagShared))
		}
		path, err := filepath.Abs(file)
		if err != nil {
			return nil, badInput("--%s: %w", flagShared, err)
		}
		if slices.Contains(files, path) {
			return nil, badInput("--%s: %s twice", flagShared, path)
		}
		files = append(files, path)
	}
	return files, nil
}
