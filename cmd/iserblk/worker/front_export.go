package worker

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"iserblk/internal/block"
	"iserblk/nbd"
)

// maxClients is how many connections one export has at most.
const maxClients = 64

// ExportOptions say where an export is served, and to whom.
type ExportOptions struct {
	// Listen is "unix:PATH" or "tcp:HOST:PORT"; "" is a socket in the run directory.
	Listen string `json:"listen,omitempty"`
	// Cert, Key and ClientCA are PEM. TCP is served with TLS if there is a Cert, to clients that ClientCA vouches
	// for if there is one.
	Cert     string `json:"cert,omitempty"`
	Key      Secret `json:"key,omitempty"`
	ClientCA string `json:"clientCA,omitempty"`
	// Plain serves TCP in the clear.
	Plain bool `json:"plain,omitempty"`
}

// Paths are those of the file system that the export needs.
func (o ExportOptions) Paths() []string {
	if path, ok := strings.CutPrefix(o.Listen, "unix:"); ok {
		return []string{path}
	}
	return nil
}

// exportFrontend serves LUNs to NBD clients on sockets. It needs nothing of the kernel.
type exportFrontend struct {
	log *slog.Logger
	run string
}

func (e *engine) openExport(context.Context, AttachOptions) (frontend, error) {
	return &exportFrontend{log: e.log, run: e.spec.RunDir}, nil
}

func (f *exportFrontend) name() string { return FrontExport }
func (f *exportFrontend) close()       {}

func (f *exportFrontend) buffers(l *block.Limits, queues int) (n int, size uint32) {
	return nbd.BuffersPerQueue(l.Depth, maxClients, queues), uint32(nbd.BufferSize(l))
}

func (f *exportFrontend) create(ctx context.Context, p plan) (front, error) {
	at, err := p.opts.Export.listenConfig(f.run, p.target, p.lun)
	if err != nil {
		return nil, err
	}
	x, err := nbdExport(ctx, p, maxClients, f.log)
	if err != nil {
		return nil, err
	}
	addr, err := x.Listen(ctx, at)
	if err != nil {
		_ = x.Close(context.WithoutCancel(ctx)) // nobody has connected
		return nil, err
	}
	return &exportFront{export: x, uri: exportURI(addr, at.TLS != nil), ended: make(chan struct{})}, nil
}

func (o ExportOptions) listenConfig(run, target string, lun uint64) (nbd.ListenConfig, error) {
	if o.Listen == "" {
		return nbd.ListenConfig{Network: "unix", Address: exportSocket(run, target, lun)}, nil
	}
	network, address, _ := strings.Cut(o.Listen, ":")
	c := nbd.ListenConfig{Network: network, Address: address, Plain: o.Plain}
	var err error
	if network == "tcp" && o.Cert != "" {
		c.TLS, err = o.tls()
	}
	return c, err
}

func (o ExportOptions) tls() (*tls.Config, error) {
	return nbd.ParseTLS([]byte(o.Cert), []byte(o.Key.Reveal()), []byte(o.ClientCA))
}

// maxSocketPath is the room in a socket's address (unix(7)), without the zero at its end.
const maxSocketPath = 107

// exportSocket is where a LUN is served unless something else is asked for. A name that is too long for a socket is
// replaced by its hash.
func exportSocket(run, target string, lun uint64) string {
	suffix := "-" + strconv.FormatUint(lun, 10) + ".nbd"
	path := filepath.Join(run, target+suffix)
	if len(path) <= maxSocketPath {
		return path
	}
	sum := sha256.Sum256([]byte(target))
	return filepath.Join(run, hex.EncodeToString(sum[:8])+suffix)
}

// plainQuery keeps what a query may hold readable, and does without the plus that some parsers do not take for a space.
var plainQuery = strings.NewReplacer("%2F", "/", "%3A", ":", "+", "%20")

// exportURI is what clients find the export by (the NBD project's uri.md).
func exportURI(addr net.Addr, secure bool) string {
	scheme := "nbd"
	if secure {
		scheme = "nbds"
	}
	if addr.Network() == "unix" {
		return scheme + "+unix:///?socket=" + plainQuery.Replace(url.QueryEscape(addr.String()))
	}
	at, err := netip.ParseAddrPort(addr.String())
	if err == nil && at.Addr().IsUnspecified() {
		return fmt.Sprintf("%s://localhost:%d", scheme, at.Port())
	}
	return scheme + "://" + addr.String()
}

// socketOf is the socket of a URI, "" where it has none.
func socketOf(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || !strings.HasSuffix(u.Scheme, "+unix") {
		return ""
	}
	return u.Query().Get("socket")
}

// exportFront is one LUN served on a socket.
type exportFront struct {
	export *nbd.Export
	uri    string
	ended  chan struct{}
}

func (f *exportFront) path() string             { return f.uri }
func (f *exportFront) fail(errno syscall.Errno) { f.export.Fail(errno) }
func (f *exportFront) counters() Counters       { return exportCounters(f.export) }
func (f *exportFront) lost() <-chan struct{}    { return f.ended }
func (f *exportFront) err() error               { return nil }

func (f *exportFront) describe(d *Device) {
	d.Frontend, d.Clients = FrontExport, int(f.export.Stats().Conns)
}

func (f *exportFront) tryStop(ctx context.Context) error {
	if n := f.export.Stats().Conns; n > 0 {
		return fmt.Errorf("%s: %w: %d clients are connected", f.uri, ErrBusy, n)
	}
	return f.stop(ctx)
}

func (f *exportFront) stop(ctx context.Context) error {
	if err := f.export.Close(ctx); err != nil {
		return err
	}
	select {
	case <-f.ended:
	default:
		close(f.ended)
	}
	return nil
}

// resize is for clients that come from now on: the protocol cannot tell those that are there.
func (f *exportFront) resize(_ context.Context, size uint64) error {
	f.export.SetSize(size)
	return nil
}
