package session

import (
	"fmt"
	"time"

	"iserblk/session/chap"
	"iserblk/session/pdu"
)

// Defaults of Params.
const (
	DefaultCommandTimeout = 30 * time.Second
	DefaultAbortTimeout   = 10 * time.Second
	DefaultNOPInterval    = 5 * time.Second
	DefaultNOPTimeout     = 5 * time.Second
	DefaultLoginTimeout   = 15 * time.Second
	DefaultFirstBurst     = 64 << 10
	DefaultMaxBurst       = 16776192 // the largest multiple of 512 below 2^24
)

// maxData is the data segment that every PDU but a command may have in both directions: RFC 7143's value during
// login, LIO's receive buffers, and ours.
const maxData = 8192

// DrainTimeout is how long a lost nexus waits for its work requests to come back before its Datamover has to be
// closed to make sure.
const DrainTimeout = 2 * time.Second

// Params say who logs in to what, and how patient it is. Zero values mean the defaults.
type Params struct {
	InitiatorName string
	TargetName    string   // not used in discovery
	ISID          pdu.ISID // one per path and lane, the same at every login
	Discovery     bool     // a discovery session: Text and Logout only

	// CHAP holds the credentials; its zero value means no authentication. With Target set the target must prove
	// itself too.
	CHAP chap.Config

	CommandTimeout time.Duration // until a command is aborted, where it does not say so itself
	AbortTimeout   time.Duration // until an unanswered task management function means that the connection is lost
	NOPInterval    time.Duration // of silence, until the target is pinged; negative: never
	NOPTimeout     time.Duration // of silence after a ping, until the connection is lost
	LoginTimeout   time.Duration // of the whole login

	NoImmediateData bool   // refuse to send data along with write commands
	FirstBurst      uint32 // bytes of immediate data at most
	MaxBurst        uint32 // bytes
}

// String shows everything but the secrets, which print as "[secret]".
func (p Params) String() string {
	who := p.TargetName
	if p.Discovery {
		who = "discovery"
	}
	auth := "no authentication"
	switch {
	case p.mutual():
		auth = "mutual CHAP as " + p.CHAP.Own.Name
	case p.authenticates():
		auth = "CHAP as " + p.CHAP.Own.Name
	}
	return fmt.Sprintf("%s as %s, ISID %v, %s", who, p.InitiatorName, p.ISID, auth)
}

// GoString keeps %#v from showing more than String.
func (p Params) GoString() string { return "session.Params{" + p.String() + "}" }

func (p *Params) authenticates() bool { return p.CHAP.Own.Name != "" || !p.CHAP.Own.Secret.Empty() }

func (p *Params) mutual() bool { return p.CHAP.Target.Name != "" || !p.CHAP.Target.Secret.Empty() }

func (p Params) withDefaults() Params {
	orDuration(&p.CommandTimeout, DefaultCommandTimeout)
	orDuration(&p.AbortTimeout, DefaultAbortTimeout)
	orDuration(&p.NOPInterval, DefaultNOPInterval)
	orDuration(&p.NOPTimeout, DefaultNOPTimeout)
	orDuration(&p.LoginTimeout, DefaultLoginTimeout)
	if p.FirstBurst == 0 {
		p.FirstBurst = DefaultFirstBurst
	}
	if p.MaxBurst == 0 {
		p.MaxBurst = DefaultMaxBurst
	}
	return p
}

func orDuration(d *time.Duration, def time.Duration) {
	if *d == 0 {
		*d = def
	}
}

// check finds what would put something else on the wire than was meant.
func (p *Params) check() error {
	if err := checkName("initiator name", p.InitiatorName); err != nil {
		return err
	}
	if !p.Discovery {
		if err := checkName("target name", p.TargetName); err != nil {
			return err
		}
	}
	for _, n := range [...]uint32{p.FirstBurst, p.MaxBurst} {
		if n < minBurst || n > maxBurst {
			return fmt.Errorf("burst length of %d bytes is not between %d and %d", n, minBurst, maxBurst)
		}
	}
	if p.FirstBurst > p.MaxBurst {
		return fmt.Errorf("first burst of %d bytes is longer than the maximum burst of %d", p.FirstBurst, p.MaxBurst)
	}
	return nil
}

// maxName is the longest iSCSI name in bytes (RFC 7143 4.2.7.1).
const maxName = 223

func checkName(what, name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("%s has %d bytes, it must have 1 to %d", what, len(name), maxName)
	}
	if err := pdu.CheckPair("InitiatorName", name); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Negotiated is what both sides agreed on.
type Negotiated struct {
	ImmediateData bool
	// FirstBurstLength and TargetRecvDataSegmentLength both bound a command's immediate data, in bytes.
	FirstBurstLength            uint32
	TargetRecvDataSegmentLength uint32
	// InitiatorRecvDataSegmentLength bounds the data segment of what the target sends, in bytes.
	InitiatorRecvDataSegmentLength uint32
	MaxBurstLength                 uint32
	// MaxRecvDataSegmentLength is the target's, declared in discovery sessions, in bytes.
	MaxRecvDataSegmentLength uint32

	TSIH pdu.TSIH
	// TargetPortalGroupTag tells which portals share sessions: reinstatement works within one group only. It is -1
	// where the target did not say.
	TargetPortalGroupTag int
	TargetAlias          string

	DefaultTime2Wait, DefaultTime2Retain time.Duration
	// Algorithm is the CHAP hash that was used, 0 without authentication.
	Algorithm chap.Algorithm
}

// immediateLimit is how long a write may be to go along with its command, in bytes.
func (g *Negotiated) immediateLimit() int {
	if !g.ImmediateData {
		return 0
	}
	return int(min(g.FirstBurstLength, g.TargetRecvDataSegmentLength, g.MaxBurstLength))
}
