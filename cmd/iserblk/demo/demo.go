// Package demo shows the whole product on one machine, with nothing but the program itself: an iSER target in this
// process, at two portals, and an initiator in other processes, which serves the target's LUN on an NBD socket.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"

	"iserblk/iser/isertarget"
	"iserblk/verbs"
)

// Options are the choices of a run.
type Options struct {
	Exe      string    // the program, for the initiator's processes
	Out      io.Writer // the story; nil tells none
	Terminal bool      // Out is one: colours, and lines that move
	Provider string    // of RDMA, for both ends
	Size     int64     // bytes of the LUN; a multiple of 4096
	Stay     bool      // serve until ctx ends
	// Acceptor is the provider's passive end.
	Acceptor verbs.Acceptor
	// Portals are where the target is served.
	Portals []netip.AddrPort
}

// Report is what a run has shown.
type Report struct {
	Target   string   `json:"target"`
	Provider string   `json:"provider"`
	Portals  []string `json:"portals"`
	Device   string   `json:"device"`
	Size     uint64   `json:"size"` // bytes
	Write    Pass     `json:"write"`
	Read     Pass     `json:"read"`
	Failover Pass     `json:"failover"` // writing while a portal went down
	Reread   Pass     `json:"reread"`   // after it
	From     string   `json:"failoverFrom"`
	To       string   `json:"failoverTo"`
}

const (
	targetName    = "iqn.2026-11.local.iserblk.demo"
	initiatorName = "iqn.2026-11.local.iserblk.demo:initiator"
	workers       = 16
	blockSize     = 4096
)

// run is one demonstration.
type run struct {
	Options
	screen
	target *isertarget.Target
	host   initiator
	dev    *device
	disk   *client
	report Report
}

// Run tells the story to its end, or until ctx ends. It leaves nothing behind.
func Run(ctx context.Context, o Options) (Report, error) {
	r := &run{Options: o, screen: screen{out: o.Out, colour: o.Terminal}}
	r.report = Report{Target: targetName, Provider: o.Provider, Size: uint64(o.Size)}
	dir, err := os.MkdirTemp(base(), "iserblk-demo-")
	if err != nil {
		return r.report, err
	}
	r.host = initiator{exe: o.Exe, dir: dir}
	err = r.tell(ctx)
	if stopped := r.clear(); err == nil {
		err = stopped
	}
	return r.report, errors.Join(err, os.RemoveAll(dir))
}

// base is where the demo keeps what it needs: a socket's address has no room for a long path (unix(7)).
func base() string {
	const most = 40
	if d := os.TempDir(); len(d) <= most {
		return d
	}
	return "/tmp"
}

func (r *run) tell(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		r.serve, r.discover, r.attach, r.verify, r.failover, r.invite,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// clear ends everything, in the order in which things depend on each other.
func (r *run) clear() error {
	if r.disk != nil {
		r.disk.close()
	}
	if r.dev != nil {
		r.dev.stop()
	}
	if r.target == nil {
		return nil
	}
	r.target.Close()
	if v := r.target.Violations(); len(v) > 0 {
		return fmt.Errorf("the target says that the initiator broke the protocol: %q", v)
	}
	return nil
}

// serve starts the target.
func (r *run) serve(ctx context.Context) error {
	r.heading("A target: %d MiB in memory, at two portals, RDMA by %s", r.Size>>20, r.Provider)
	r.target = isertarget.New(isertarget.Options{Name: targetName, Vendor: "ISERBLK", Workers: workers, NoLog: true})
	r.target.AddDisk(0, isertarget.DiskOptions{
		Blocks: uint64(r.Size / blockSize), BlockSize: blockSize, Serial: "iserblk-demo", WriteCache: false,
	})
	for _, at := range r.Options.Portals {
		p, err := r.target.Listen(ctx, r.Acceptor, at, 1)
		if err != nil {
			return err
		}
		r.report.Portals = append(r.report.Portals, p.Addr().String())
	}
	r.ok("%s at %s", targetName, join(r.report.Portals, " and "))
	return nil
}

// show runs a command and shows it with what it prints.
func (r *run) show(ctx context.Context, args ...string) (string, error) {
	r.screen.command(append([]string{"iserblk"}, args...)...)
	out, err := r.host.ask(ctx, append(args, r.common()...)...)
	if err == nil {
		r.text(out)
	}
	return out, err
}

// common is what need not be typed elsewhere: by itself, the initiator takes the name that the host has.
func (r *run) common() []string {
	return []string{"--provider", r.Provider, "--initiator-name", initiatorName}
}

// discover asks for the target, and for its units by each portal.
func (r *run) discover(ctx context.Context) error {
	r.heading("What is there, by either portal?")
	if _, err := r.show(ctx, "discover", r.report.Portals[0]); err != nil {
		return err
	}
	for _, p := range r.report.Portals {
		if _, err := r.show(ctx, "luns", "iser://"+p+"/"+targetName); err != nil {
			return err
		}
	}
	r.ok("two portals, one LUN, a login by each")
	return nil
}

// attach makes the LUN an NBD export.
func (r *run) attach(ctx context.Context) (err error) {
	r.heading("Attach it, by both portals, as an NBD socket: no kernel module, no privilege")
	args := []string{"attach", "--frontend", "export", "iser://" + join(r.report.Portals, ",") + "/" + targetName + "/0"}
	r.screen.command(append([]string{"iserblk"}, args...)...)
	args = append(args, "--foreground", "--nop-interval", "1s", "--nop-timeout", "1s")
	if r.dev, err = r.host.attach(ctx, append(args, r.common()...)...); err != nil {
		return err
	}
	r.report.Device = r.dev.uri
	r.text(r.dev.uri)
	if err := r.listing(ctx, "list"); err != nil {
		return err
	}
	if r.disk, err = dialNBD(ctx, r.dev.uri, depth); err != nil {
		return err
	}
	if r.disk.size != uint64(r.Size) {
		return fmt.Errorf("the export has %d bytes, the LUN has %d", r.disk.size, r.Size)
	}
	r.ok("the socket serves %d MiB", r.disk.size>>20)
	return nil
}

// listing shows a command that asks the server.
func (r *run) listing(ctx context.Context, args ...string) error {
	r.screen.command(append([]string{"iserblk"}, args...)...)
	out, err := r.host.ask(ctx, args...)
	if err == nil {
		r.text(out)
	}
	return err
}

// pass writes or checks the whole disk.
func (r *run) pass(ctx context.Context, what string, seed uint64, check bool, to *Pass, at func(done, total uint64)) error {
	tick, end := r.bar(what)
	l := &load{c: r.disk, seed: seed, check: check, tick: func(done, total uint64) {
		if tick != nil {
			tick(done, total)
		}
		if at != nil {
			at(done, total)
		}
	}}
	var err error
	*to, err = l.run(ctx)
	end()
	if err != nil {
		return err
	}
	r.printf("    %-12s %d MiB in %.2f s, %.0f MB/s, longest request %.1f ms\n", what, to.Bytes>>20, to.Seconds, to.MBps,
		to.Slowest.Seconds()*1e3)
	return nil
}

// verify writes a pattern and reads it back.
func (r *run) verify(ctx context.Context) error {
	r.heading("Write a pattern over all of it, read it back, compare every byte")
	if err := r.pass(ctx, "write", 1, false, &r.report.Write, nil); err != nil {
		return err
	}
	if err := r.pass(ctx, "read", 1, true, &r.report.Read, nil); err != nil {
		return err
	}
	r.ok("every byte is what was written")
	return nil
}

// failover takes the portal in use down in the middle of a pass.
func (r *run) failover(ctx context.Context) error {
	r.heading("The same again, with another pattern; half way the portal in use goes down")
	hit := r.inUse()
	if hit == nil {
		return errors.New("the target has no connection")
	}
	var once sync.Once
	err := r.pass(ctx, "write", 2, false, &r.report.Failover, func(done, total uint64) {
		if done > total/2 {
			once.Do(hit.Down)
		}
	})
	if err != nil {
		return err
	}
	if err := r.pass(ctx, "read", 2, true, &r.report.Reread, nil); err != nil {
		return err
	}
	now := r.inUse()
	if now == nil || now == hit {
		return errors.New("the initiator has not changed its portal")
	}
	r.report.From, r.report.To = hit.Addr().String(), now.Addr().String()
	if err := r.listing(ctx, "paths", r.dev.uri); err != nil {
		return err
	}
	r.ok("from %s to %s without an error; the longest request took %.0f ms", hit.Addr(), now.Addr(),
		r.report.Failover.Slowest.Seconds()*1e3)
	return hit.Up(ctx)
}

// inUse is the portal that the initiator's sessions go by.
func (r *run) inUse() *isertarget.Portal {
	conns := r.target.Conns()
	if len(conns) == 0 {
		return nil
	}
	at := conns[len(conns)-1].Portal()
	for _, p := range r.target.Portals() {
		if p.Addr() == at {
			return p
		}
	}
	return nil
}

// invite says what to try next, and waits if that was asked for.
func (r *run) invite(ctx context.Context) error {
	if !r.Stay {
		r.printf("\nThat is all; nothing is left. iserblk demo --stay leaves the socket running, to be tried with nbdinfo,\n" +
			"nbdcopy or qemu-img. docs/operations.md tells how to use it with real targets.\n")
		return nil
	}
	r.disk.close()
	r.disk = nil
	r.heading("Your turn: the socket stays until Ctrl-C")
	uri := "'" + r.dev.uri + "'"
	for _, words := range [][]string{
		{"nbdinfo", uri},
		{"nbdcopy", "--progress", uri, "/tmp/copy.img"},
		{"qemu-img", "info", uri},
		{"qemu-io", "-f", "raw", "-c", `"write -P 7 0 1M"`, "-c", `"read -P 7 0 1M"`, uri},
		{"ISERBLK_RUN_DIR=" + r.host.dir + "/run", "iserblk", "status", uri},
	} {
		r.screen.command(words...)
	}
	select {
	case <-ctx.Done():
	case <-r.dev.ended:
		return fmt.Errorf("the initiator has ended: %v: %s", r.dev.err, r.dev.said)
	}
	return nil
}

func join(list []string, by string) string {
	s := list[0]
	for _, x := range list[1:] {
		s += by + x
	}
	return s
}
