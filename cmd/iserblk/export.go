package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"iserblk/cmd/iserblk/worker"
)

// checkExportFlags refuses what would not be served as it was meant.
func checkExportFlags(c *cli.Context) error {
	export := c.String(flagFrontend) == worker.FrontExport
	for _, n := range []string{flagListen, flagTLSCert, flagTLSKey, flagTLSClientCA, flagNoTLS} {
		if c.IsSet(n) && !export {
			return badInput("--%s goes with --%s %s", n, flagFrontend, worker.FrontExport)
		}
	}
	network, address, _ := strings.Cut(c.String(flagListen), ":")
	switch network {
	case "", "unix":
		return checkUnix(c, network, address)
	case "tcp":
		return checkTCP(c, address)
	}
	return badInput("--%s %s: want unix:PATH or tcp:HOST:PORT", flagListen, c.String(flagListen))
}

func checkUnix(c *cli.Context, network, path string) error {
	for _, n := range []string{flagTLSCert, flagTLSKey, flagTLSClientCA, flagNoTLS} {
		if c.IsSet(n) {
			return badInput("--%s goes with --%s tcp:HOST:PORT", n, flagListen)
		}
	}
	if network == "unix" && path == "" {
		return badInput("--%s unix: without a path", flagListen)
	}
	return nil
}

func checkTCP(c *cli.Context, address string) error {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return badInput("--%s tcp:%s: %w", flagListen, address, err)
	}
	cert, key := c.String(flagTLSCert) != "", c.String(flagTLSKey) != ""
	switch {
	case cert != key:
		return badInput("--%s and --%s go together", flagTLSCert, flagTLSKey)
	case !cert && c.IsSet(flagTLSClientCA):
		return badInput("--%s wants --%s and --%s", flagTLSClientCA, flagTLSCert, flagTLSKey)
	case cert == c.Bool(flagNoTLS):
		return badInput("TCP is served with --%s and --%s, or to everybody and in the clear with --%s", flagTLSCert,
			flagTLSKey, flagNoTLS)
	}
	return nil
}

// exportOptions reads the files that the flags name: the worker may not see them.
func exportOptions(c *cli.Context) (o worker.ExportOptions, err error) {
	o.Listen, o.Plain = c.String(flagListen), c.Bool(flagNoTLS)
	if path, ok := strings.CutPrefix(o.Listen, "unix:"); ok {
		if path, err = filepath.Abs(path); err != nil {
			return o, err
		}
		o.Listen = "unix:" + path
	}
	if o.Cert, err = pem(c, flagTLSCert); err != nil {
		return o, err
	}
	if o.ClientCA, err = pem(c, flagTLSClientCA); err != nil {
		return o, err
	}
	if file := c.String(flagTLSKey); file != "" {
		key, err := readPrivate(file)
		if err != nil {
			return o, err
		}
		o.Key = worker.Secret(key)
	}
	return o, nil
}

func pem(c *cli.Context, flag string) (string, error) {
	file := c.String(flag)
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", badInput("--%s: %w", flag, err)
	}
	return string(text), nil
}

// checkDeadTimeout refuses to wait for the next worker where that cannot be done.
func checkDeadTimeout(c *cli.Context) error {
	if !c.IsSet(flagDeadTimeout) {
		return nil
	}
	switch d := c.Duration(flagDeadTimeout); {
	case c.String(flagFrontend) == worker.FrontExport:
		return badInput("--%s: an export has no I/O that waits, its clients connect again", flagDeadTimeout)
	case d < 0 && c.IsSet(flagShared):
		return badInput("--%s: a device whose memory is shared ends with its worker", flagDeadTimeout)
	case d > 0 && (c.IsSet(flagShared) || c.String(flagFrontend) == worker.FrontUblk):
		return badInput("--%s %v: with ublk I/O waits for the next worker for ever (-1s) or not at all (0)", flagDeadTimeout, d)
	}
	return nil
}

// noteDeadTimeout says that a time was given to a device that knows none.
func (p *program) noteDeadTimeout(c *cli.Context, devices []worker.Device) {
	if !c.IsSet(flagDeadTimeout) || c.Duration(flagDeadTimeout) <= 0 {
		return
	}
	for _, d := range devices {
		if d.Frontend == worker.FrontUblk && d.DeadTimeout >= 0 {
			p.note(fmt.Sprintf("%s dies with its worker: with ublk I/O waits for the next one for ever (--%s -1s) or not at all",
				d.Path, flagDeadTimeout))
		}
	}
}

// deadTimeout is the flag's, at least a second: the kernel counts whole ones and takes none for "do not wait".
func deadTimeout(c *cli.Context) time.Duration {
	if d := c.Duration(flagDeadTimeout); d < 0 || d >= time.Second {
		return d
	}
	return time.Second
}

// namedPaths are the files that the flags name.
func namedPaths(c *cli.Context) []string {
	all := []string{strings.TrimPrefix(c.String(flagListen), "unix:")}
	all = append(all, strings.Split(c.String(flagShared), ",")...)
	for _, n := range []string{flagTLSCert, flagTLSKey, flagTLSClientCA, flagChapSecret, flagChapTargetSecret, flagCredentials} {
		all = append(all, c.String(n))
	}
	var paths []string
	for _, file := range all {
		if path, err := filepath.Abs(file); err == nil && file != "" {
			paths = append(paths, path)
		}
	}
	return paths
}
