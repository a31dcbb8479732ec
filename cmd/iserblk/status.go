package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"iserblk/cmd/iserblk/worker"
)

func (p *program) statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "show all that is known of a device, or of everything",
		ArgsUsage: "[DEVICE|TARGET]",
		Flags:     []cli.Flag{outputFlag()},
		Action:    p.status,
	}
}

func (p *program) status(c *cli.Context) error {
	asJSON, err := format(c)
	if err != nil {
		return err
	}
	args, err := only(c, 0, 1)
	if err != nil {
		return err
	}
	workers, err := p.chosen(c, args)
	if err != nil {
		return err
	}
	if asJSON {
		return p.printJSON("targets", workers)
	}
	var b strings.Builder
	for i, w := range workers {
		if i > 0 {
			b.WriteString("\n")
		}
		printStatus(&b, w)
	}
	return p.print(b.String())
}

// chosen are the workers that the arguments mean: all without an argument, with a device only its own. A device's
// worker shows that device alone.
func (p *program) chosen(c *cli.Context, args []string) ([]worker.Worker, error) {
	if len(args) == 0 {
		all, err := p.workers(c)
		if all == nil {
			all = []worker.Worker{}
		}
		return all, err
	}
	d, err := absolute(dirs(c))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.Context, findTimeout)
	defer cancel()
	w, device, err := worker.Find(ctx, d, args[0])
	if err != nil {
		return nil, err
	}
	if device != "" {
		w.Devices = only1(w.Devices, device)
	}
	return []worker.Worker{w}, nil
}

const findTimeout = 30 * time.Second

func only1(all []worker.Device, path string) []worker.Device {
	for _, d := range all {
		if d.Path == path {
			return []worker.Device{d}
		}
	}
	return nil
}

// providerLine is the provider, and why it is that one.
func providerLine(w worker.Worker) string {
	if w.Because == "" {
		return w.Provider
	}
	return w.Provider + ": " + w.Because
}

func printStatus(out io.Writer, w worker.Worker) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer t.Flush()
	field(t, 0, "target", w.Target)
	field(t, 1, "alias", w.Alias)
	field(t, 1, "initiator", w.Initiator)
	field(t, 1, "worker", workerLine(w))
	field(t, 1, "log", w.Log)
	field(t, 1, "provider", providerLine(w))
	if w.Queues > 0 {
		field(t, 1, "queues", strconv.Itoa(w.Queues))
	}
	if w.Failovers > 0 {
		field(t, 1, "failovers", strconv.FormatUint(w.Failovers, 10))
	}
	for _, d := range w.Devices {
		printDevice(t, d)
	}
	for _, path := range w.Paths {
		printPath(t, path)
	}
}

func workerLine(w worker.Worker) string {
	s := fmt.Sprintf("pid %d, %s", w.PID, w.State)
	if w.Foreground {
		s += ", in the foreground"
	}
	if !w.Started.IsZero() {
		s += ", since " + w.Started.Local().Format(time.DateTime)
	}
	return s
}

func printDevice(t io.Writer, d worker.Device) {
	field(t, 1, "device", d.Path)
	field(t, 2, "state", d.State)
	field(t, 2, "lun", strconv.FormatUint(d.LUN, 10))
	field(t, 2, "size", fmt.Sprintf("%s (%d bytes), blocks of %d", size(d.Size), d.Size, d.BlockSize))
	field(t, 2, "unit", joinWords(d.Vendor, d.Model, d.Serial))
	field(t, 2, "wwn", d.WWN)
	front := d.Frontend
	if d.Frontend == worker.FrontExport {
		front += fmt.Sprintf(", %d clients", d.Clients)
	} else if d.Queues > 0 {
		front += fmt.Sprintf(", %d queues of depth %d", d.Queues, d.Depth)
	}
	if d.ZeroCopy {
		front += ", with shared memory"
	}
	if d.ReadOnly {
		front += ", read-only"
	}
	field(t, 2, "front end", front)
	n := d.Counters
	field(t, 2, "reads", fmt.Sprintf("%d (%s)", n.Reads, size(n.ReadBytes)))
	field(t, 2, "writes", fmt.Sprintf("%d (%s)", n.Writes, size(n.WriteBytes)))
	if d.ZeroCopy {
		field(t, 2, "in place", fmt.Sprintf("%d of them in clients' own memory", n.ZeroCopy))
	}
	field(t, 2, "other", fmt.Sprintf("%d flushes, %d discards, %d retries, %d errors, %d in flight", n.Flushes,
		n.Discards, n.Retries, n.Errors, n.InFlight))
}

func printPath(t io.Writer, s worker.PathStatus) {
	field(t, 1, "path", s.Portal)
	state := s.State
	if s.InUse {
		state += ", in use"
	}
	if !s.Since.IsZero() {
		state += ", for " + time.Since(s.Since).Truncate(time.Second).String()
	}
	field(t, 2, "state", state)
	field(t, 2, "group", s.Group)
	field(t, 2, "from", joinWords(s.Source, s.RDMADevice, s.NetDev))
	if s.PathMTU > 0 {
		field(t, 2, "path mtu", strconv.Itoa(s.PathMTU))
	}
	field(t, 2, "last error", s.LastError)
	n := s.Negotiated
	if n.MaxBurst > 0 {
		field(t, 2, "negotiated", fmt.Sprintf("bursts of %s, first %s, immediate data %s, %d commands, authentication %s",
			size(uint64(n.MaxBurst)), size(uint64(n.FirstBurst)), yes(n.ImmediateData), n.Commands, orDash(n.AuthMethod)))
	}
	k := s.Counters
	field(t, 2, "history", fmt.Sprintf("%d logins, %d losses, %d commands, %d errors, %d aborts", k.Logins, k.Losses,
		k.Commands, k.Errors, k.Aborts))
}

// field prints one line unless there is nothing to say.
func field(t io.Writer, depth int, name, value string) {
	if value != "" {
		fmt.Fprintf(t, "%*s%s\t%s\n", 2*depth, "", name, value)
	}
}

func joinWords(words ...string) string {
	out := ""
	for _, w := range words {
		if w != "" && out != "" {
			out += " "
		}
		out += w
	}
	return out
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
