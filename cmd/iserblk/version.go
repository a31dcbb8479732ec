package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// release is set when a release is built, with -ldflags -X.
var release = "devel"

// versionInfo is what version shows.
type versionInfo struct {
	Release  string `json:"release"`
	Revision string `json:"revision,omitempty"` // of the sources; "+" after it says that they were changed
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Kernel   string `json:"kernel"`
}

func (p *program) versionCommand() *cli.Command {
	return &cli.Command{
		Name:   "version",
		Usage:  "show the version of the program and of the kernel",
		Flags:  []cli.Flag{outputFlag()},
		Action: p.version,
	}
}

func (p *program) version(c *cli.Context) error {
	asJSON, err := format(c)
	if err != nil {
		return err
	}
	if _, err := only(c, 0, 0); err != nil {
		return err
	}
	v := currentVersion()
	if asJSON {
		return p.printJSON("iserblk", v)
	}
	return p.print(fmt.Sprintf("%s\n%s %s on Linux %s\n", joinWords("iserblk", v.Release, v.Revision), v.Go, v.Platform,
		v.Kernel))
}

func currentVersion() versionInfo {
	v := versionInfo{Release: release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				v.Revision = s.Value[:min(12, len(s.Value))] + v.Revision
			case s.Key == "vcs.modified" && s.Value == "true":
				v.Revision += "+"
			}
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		v.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return v
}
