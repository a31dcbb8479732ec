package worker

import "time"

// Device is an attached logical unit.
type Device struct {
	Path        string        `json:"path"` // "/dev/ublkb0", "/dev/nbd0", or the URI of an export
	LUN         uint64        `json:"lun"`
	Size        uint64        `json:"size"`      // bytes
	BlockSize   uint32        `json:"blockSize"` // logical block, bytes
	Frontend    string        `json:"frontend"`  // "ublk", "nbd", "export"
	ReadOnly    bool          `json:"readOnly,omitempty"`
	WriteCache  bool          `json:"writeCache,omitempty"`  // completed writes may be volatile until a flush
	DeadTimeout time.Duration `json:"deadTimeout,omitempty"` // AttachOptions.DeadTimeout
	State       string        `json:"state"`                 // StateLive, StateQueueing, StateFailed
	WWN         string        `json:"wwn,omitempty"`
	Vendor      string        `json:"vendor,omitempty"`
	Model       string        `json:"model,omitempty"`
	Serial      string        `json:"serial,omitempty"`
	Depth       int           `json:"depth,omitempty"`  // requests in flight on one queue
	Queues      int           `json:"queues,omitempty"` // hardware queues
	ZeroCopy    bool          `json:"zeroCopy,omitempty"`
	Clients     int           `json:"clients,omitempty"` // connected to an export
	Cookie      string        `json:"cookie,omitempty"`  // by what the kernel knows a device that outlives its worker
	Counters    Counters      `json:"counters"`
}

// The states of a device, a path or a worker that every reader of a listing may meet.
const (
	StateLive        = "live"        // a device whose I/O has a path; a path or a worker that works
	StateQueueing    = "queueing"    // a device without a path, still holding its I/O back
	StateFailed      = "failed"      // a device whose I/O fails; a path that was given up
	StateConnecting  = "connecting"  // a path that is being logged in
	StateStandby     = "standby"     // a path that the target does not want I/O on
	StateQuarantined = "quarantined" // a path on which another logical unit answered than before
	StateStarting    = "starting"    // a worker that has not answered its first attach yet
	StateSilent      = "silent"      // a worker that is alive and does not answer on its socket
	StateDead        = "dead"        // a worker that died and left its files or devices behind
	StateParked      = "parked"      // a device of a dead worker, whose I/O the kernel holds back for the next one
)

// Counters count what a device has done since it was attached.
type Counters struct {
	Reads      uint64 `json:"reads"`
	ReadBytes  uint64 `json:"readBytes"`
	Writes     uint64 `json:"writes"`
	WriteBytes uint64 `json:"writeBytes"`
	Flushes    uint64 `json:"flushes"`
	Discards   uint64 `json:"discards"`
	Errors     uint64 `json:"errors"`   // requests that failed towards the block layer
	InFlight   uint64 `json:"inFlight"` // requests being worked on now
	Retries    uint64 `json:"retries"`  // commands sent again, on any path
	ZeroCopy   uint64 `json:"zeroCopy"` // requests whose data was never copied here
}

// Status is what a worker tells about itself and its target. Slices are in a stable order.
type Status struct {
	Target     string       `json:"target"`
	Alias      string       `json:"alias,omitempty"` // TargetAlias, if the target has one
	Initiator  string       `json:"initiator"`
	Provider   string       `json:"provider"`          // of RDMA: "rdmacore" or "softroce"
	Because    string       `json:"because,omitempty"` // why that provider, if it was not asked for
	Queues     int          `json:"queues"`            // lanes, each with a session on every path
	Failovers  uint64       `json:"failovers"`
	Paths      []PathStatus `json:"paths"`
	Devices    []Device     `json:"devices"`
	State      string       `json:"state"`   // StateLive or StateStarting; filled in by the server
	PID        int          `json:"pid"`     // filled in by the server
	Started    time.Time    `json:"started"` // filled in by the server
	Foreground bool         `json:"foreground,omitempty"`
	Log        string       `json:"log,omitempty"` // where the worker writes its log
}

// PathStatus is one way to the target: from one source to one portal, over as many sessions as there are lanes.
type PathStatus struct {
	Name       string       `json:"name"`   // the path's part of its ISIDs, see Spec.ISID
	Portal     string       `json:"portal"` // "10.0.0.1:3260"
	TPGT       uint16       `json:"tpgt"`
	Source     string       `json:"source"`             // local address, "" while it is not connected
	RDMADevice string       `json:"rdmaDevice"`         // "rxe0"
	NetDev     string       `json:"netDev,omitempty"`   // "eth0"
	PathMTU    int          `json:"pathMTU,omitempty"`  // bytes
	State      string       `json:"state"`              // StateLive, StateConnecting, StateStandby, StateFailed, StateQuarantined
	InUse      bool         `json:"inUse"`              // I/O goes this way now
	Group      string       `json:"group,omitempty"`    // ALUA access state: "active/optimized"
	Priority   int          `json:"priority,omitempty"` // higher is preferred
	ISIDs      []string     `json:"isids,omitempty"`    // one a lane, in hex
	Since      time.Time    `json:"since"`              // when it came into this state
	LastError  string       `json:"lastError,omitempty"`
	Negotiated Negotiated   `json:"negotiated"`
	Counters   PathCounters `json:"counters"`
}

// Negotiated holds what initiator and target agreed on at login (RFC 7143, chapter 13; RFC 7145, chapter 6).
type Negotiated struct {
	ImmediateData     bool   `json:"immediateData"`
	InitialR2T        bool   `json:"initialR2T"`
	FirstBurst        uint32 `json:"firstBurst"`           // bytes
	MaxBurst          uint32 `json:"maxBurst"`             // bytes
	InitiatorRecvData uint32 `json:"initiatorRecvData"`    // bytes
	TargetRecvData    uint32 `json:"targetRecvData"`       // bytes
	Commands          int    `json:"commands"`             // outstanding at most, on one session
	AuthMethod        string `json:"authMethod,omitempty"` // "None", "CHAP"
}

// PathCounters count what has happened on a path since the worker started.
type PathCounters struct {
	Logins    uint64 `json:"logins"`
	Losses    uint64 `json:"losses"` // connections that ended without our asking
	Commands  uint64 `json:"commands"`
	Errors    uint64 `json:"errors"`
	Aborts    uint64 `json:"aborts"` // overdue commands that were aborted
	InFlight  uint64 `json:"inFlight"`
	FencedOps uint64 `json:"fencedOps"` // writes held back until the dead path was fenced
}
