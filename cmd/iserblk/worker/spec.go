package worker

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"iserblk/cmd/iserblk/state"
)

// SpecVersion is the version of Spec's JSON form. A worker refuses any other.
const SpecVersion = 1

// Spec is what a worker is started with. It may hold secrets: it travels over a socketpair, never on a command line.
type Spec struct {
	Version       int              `json:"version"`
	Target        string           `json:"target"`  // iSCSI name
	Portals       []netip.AddrPort `json:"portals"` // resolved, in the user's order; more may be found by the engine
	Sources       []netip.Addr     `json:"sources,omitempty"`
	InitiatorName string           `json:"initiatorName"`
	Seed          state.Seed       `json:"seed"` // what ISIDs are derived from
	CHAP          Credentials      `json:"chap"`
	Provider      string           `json:"provider,omitempty"` // of RDMA; "" is the default one
	Queues        int              `json:"queues,omitempty"`   // lanes; 0 lets the engine choose
	Depth         int              `json:"depth,omitempty"`    // requests in flight on one queue of a device; 0 lets the engine choose
	// Spin is the longest time that a lane looks for answers before it sleeps; 0 lets the engine choose, negative is never.
	Spin     time.Duration `json:"spin,omitempty"`
	Timeouts Timeouts      `json:"timeouts"`
	Verbose  bool          `json:"verbose,omitempty"`
	// RunDir is where sockets go, KeepDir what has to outlive a crash; the worker itself fills them in. Without KeepDir
	// nothing is kept.
	RunDir  string `json:"-"`
	KeepDir string `json:"-"`
}

// Timeouts are the bounds of the worker's waits. Zero lets the engine choose, but for NoPath.
type Timeouts struct {
	Login   time.Duration `json:"login,omitempty"`   // one connect and login
	NoPath  time.Duration `json:"noPath,omitempty"`  // how long I/O is held back without a path; 0 is not at all, negative for ever
	Command time.Duration `json:"command,omitempty"` // how long the target may take for one command before it is aborted
	NopIdle time.Duration `json:"nopIdle,omitempty"` // silence after which a path is pinged
	NopWait time.Duration `json:"nopWait,omitempty"` // how long the answer may take
}

// Credentials are for CHAP (RFC 7143, 12.1). The zero value means none.
type Credentials struct {
	User         string   `json:"user,omitempty"` // we prove to be User by Secret
	Secret       Secret   `json:"secret,omitempty"`
	TargetUser   string   `json:"targetUser,omitempty"` // the target proves to be TargetUser by TargetSecret, if that is set
	TargetSecret Secret   `json:"targetSecret,omitempty"`
	Algorithms   []string `json:"algorithms,omitempty"` // numbers of CHAP_A to offer, best first; nil lets the engine choose
}

// Secret is text that no log and no error may show: every way of formatting but JSON hides it.
type Secret string

const hidden = "(hidden)"

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// Format hides the secret from every verb of fmt.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue hides the secret from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Reveal is the secret itself.
func (s Secret) Reveal() string { return string(s) }

// LogValue keeps secrets out of every slog handler, also those that would marshal the struct.
func (c Credentials) LogValue() slog.Value {
	return slog.GroupValue(slog.String("user", c.User), slog.Bool("mutual", c.TargetSecret != ""))
}

// LogValue shows what identifies a spec, and no secret.
func (s Spec) LogValue() slog.Value {
	return slog.GroupValue(slog.String("target", s.Target), slog.Any("portals", s.Portals),
		slog.Any("sources", s.Sources), slog.String("initiator", s.InitiatorName), slog.Any("chap", s.CHAP))
}

// ISID is the ISID of one session of this host with the target: the same for the same path and lane whenever and by
// whichever worker it is asked for. path is any text that names the path for good: source and portal.
func (s Spec) ISID(path string, lane int) state.ISID { return s.Seed.ISID(s.Target, path, lane) }

// withoutSecrets is what may be written down.
func (s Spec) withoutSecrets() Spec {
	s.CHAP.Secret, s.CHAP.TargetSecret = "", ""
	return s
}

// FreshISID is an ISID that no other session uses: for sessions that must not end one that a worker has.
func (s Spec) FreshISID() state.ISID { return state.FreshISID() }

// check refuses a spec that another version of the program wrote or that lacks what every engine needs.
func (s Spec) check() error {
	switch {
	case s.Version != SpecVersion:
		return fmt.Errorf("spec of version %d, this program speaks version %d", s.Version, SpecVersion)
	case len(s.Portals) == 0:
		return errors.New("spec without a portal")
	case s.Queues > QueueLimit:
		return fmt.Errorf("%w: %d queues, at most %d are served", ErrInput, s.Queues, QueueLimit)
	}
	return state.CheckName(s.Target)
}
