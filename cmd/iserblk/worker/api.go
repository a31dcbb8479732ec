package worker

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"iserblk/verbs"
)

// Engine serves one target: its sessions, logical units and devices. All methods may be called from any goroutine;
// the server calls Attach, Adopt, Detach and Close one at a time, and Status and Empty beside them.
type Engine interface {
	// Attach makes devices of the target's LUNs and returns them in LUN order once they are usable. luns nil means
	// every LUN that is not attached yet. For an explicit list it is all or nothing. Errors: ErrAttached,
	// ErrNotFound, ErrMismatch, and whatever the layers below fail with.
	Attach(ctx context.Context, luns []uint64, opts AttachOptions) ([]Device, error)
	// Adopt takes a device over that a dead worker of this target has left and that Backend.Parked knows, with all
	// that waits for it. The sessions of that worker have ended by the engine's own logins. When it fails, the device
	// is still as it was. Errors: ErrMismatch when the LUN is not what it was, and those of Attach.
	Adopt(ctx context.Context, d Device) (Device, error)
	// Detach removes one device, named by its path ("/dev/ublkb0") or its LUN in decimal. Without force it fails with
	// ErrBusy while anyone has the device open, and waits for its requests until ctx ends. With force it fails
	// what is left and always removes the device.
	Detach(ctx context.Context, device string, force bool) error
	// Status is a snapshot. It must not wait for I/O: it also answers while every path is down.
	Status(ctx context.Context) Status
	// Close detaches every device and logs out. Without force it fails with ErrBusy while anyone has one of them
	// open, and has then detached nothing. With force it always ends within a bounded time.
	Close(ctx context.Context, force bool) error
	// Empty says whether no device is attached.
	Empty() bool
}

// AttachOptions are the choices of one attach.
type AttachOptions struct {
	Frontend   string `json:"frontend,omitempty"`   // one of Frontends; "" is FrontAuto
	ReadOnly   bool   `json:"readOnly,omitempty"`   // the device refuses writes
	NoModprobe bool   `json:"noModprobe,omitempty"` // no module is loaded
	// DeadTimeout is how long the kernel holds the requests of a device whose worker has died; 0 lets the front end
	// choose, negative is for ever. A /dev/ublkbN holds them for ever or not at all.
	DeadTimeout time.Duration `json:"deadTimeout,omitempty"`
	Export      ExportOptions `json:"export,omitzero"`
	// Shared are files on tmpfs or hugetlbfs that clients of the device may map for their buffers: what is read or
	// written from there is moved in place. It takes FrontUblk.
	Shared []SharedFile `json:"shared,omitempty"`
}

// SharedFile is a file as whoever asks for it sees it: mounts may have changed since the worker started.
type SharedFile struct {
	Path   string `json:"path"` // absolute
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// Portal is one line of a discovery: a target and one of its portals.
type Portal struct {
	Target  string `json:"target"`  // iSCSI name
	Address string `json:"address"` // "10.0.0.1:3260", as the target wrote it, with the port filled in
	TPGT    uint16 `json:"tpgt"`    // target portal group tag
}

// LUN is a logical unit as the target describes it.
type LUN struct {
	LUN       uint64 `json:"lun"`
	Size      uint64 `json:"size"`      // bytes
	BlockSize uint32 `json:"blockSize"` // bytes
	Vendor    string `json:"vendor"`
	Model     string `json:"model"`
	Revision  string `json:"revision,omitempty"`
	Serial    string `json:"serial,omitempty"`
	WWN       string `json:"wwn"` // "naa.6001405…", "eui.…" or "t10.…"; "" when the unit has none
	ReadOnly  bool   `json:"readOnly,omitempty"`
	Type      string `json:"type,omitempty"`  // peripheral device type in words: "disk"
	Error     string `json:"error,omitempty"` // why the rest could not be had
}

// Backend is everything the command line stands on. The functions are filled in where the layers are wired together.
type Backend struct {
	// NewEngine logs in to the target on every portal it can reach and fails only if that is none. first is what the
	// first attach asks for. It honours ctx while it works; the engine outlives ctx.
	NewEngine func(ctx context.Context, spec Spec, first AttachOptions, log *slog.Logger) (Engine, error)
	// Discover asks every portal of spec in turn for its targets (SendTargets) and returns the first answer. Spec's
	// Target is not used.
	Discover func(ctx context.Context, spec Spec, log *slog.Logger) ([]Portal, error)
	// LUNs lists the logical units of spec's target. It logs in with Spec.FreshISID, beside any worker of that target.
	LUNs func(ctx context.Context, spec Spec, log *slog.Logger) ([]LUN, error)
	// RemoveDevice takes away what a worker that died left of a device. No device at all is not an error.
	RemoveDevice func(ctx context.Context, d Device) error
	// Parked says whether a device of a worker that died can be adopted by the next one, or that this cannot be told. nil:
	// there are none such.
	Parked func(ctx context.Context, d Device) (bool, error)
	// Orphans are what workers of a target that died in the middle of an attach have left and nobody knows of. nil:
	// nothing.
	Orphans func(ctx context.Context, run, target string) []Device
	// ChooseProvider says which provider of RDMA the name would give for a way to dst, and why.
	ChooseProvider func(name string, src, dst netip.Addr) (provider, why string, err error)
	// Devices lists the RDMA devices that the provider of this name sees; "" is the default one.
	Devices func(ctx context.Context, provider string) ([]verbs.DeviceInfo, error)
}
