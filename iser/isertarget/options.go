package isertarget

// Options are a target's habits. The zero value behaves like LIO.
type Options struct {
	Name   string // iSCSI name; empty means DefaultName
	Vendor string // of every unit, 8 characters; empty means "ISERTEST"
	CHAP   CHAP

	NoImmediateData bool // as tgt and SCST
	FirstBurst      int  // bytes; 0 means 65536
	MaxBurst        int  // bytes; 0 means 262144
	RecvSegment     int  // TargetRecvDataSegmentLength, bytes; 0 means 8192
	Window          int  // commands of a session at a time; 0 means 64
	Receives        int  // messages that may be unanswered before it counts as a violation; 0 means 128
	MaxLoginSegment int  // bytes of text in one login or text response; 0 means 8192

	// EarlyReinstatement answers a login while commands of the session it replaces still run, as tgt does.
	// Otherwise the login waits for them, as with LIO.
	EarlyReinstatement bool
	PowerOnAttention   bool // a new session finds UNIT ATTENTION 29/00 on every unit
	PadResponses       bool // fill the data segment of responses to four bytes
	ALUA               bool // report target port groups; see Target.SetAccess

	// SenseLength fills sense data up to as many bytes, as SCST's 252; 0 leaves it at what there is to say.
	SenseLength     int
	DescriptorSense bool // sense data in the descriptor format (D_SENSE)

	// Workers is how many commands of one connection are carried out at the same time, in no order. Below 2 each is
	// done, with its answer, before the next one is looked at: the order that tests rely on.
	Workers int
	NoLog   bool // keep no Log: it grows with every command
}

// CHAP is what an initiator must prove, and what the target proves to it (RFC 1994). Without a Secret no
// authentication is asked for.
type CHAP struct {
	User, Secret             string // the initiator's
	MutualUser, MutualSecret string // the target's own; empty when it does not authenticate itself
	Discovery                bool   // ask for it in discovery sessions, too
	Algorithms               []int  // that are taken; nil means 5 (MD5), 6 (SHA1), 7 (SHA-256) and 8 (SHA3-256)
}

// DefaultName is the iSCSI name of a target without one.
const DefaultName = "iqn.2026-01.test.isertarget:disk"

func (o Options) withDefaults() Options {
	def := func(v *int, to int) {
		if *v == 0 {
			*v = to
		}
	}
	def(&o.FirstBurst, 65536)
	def(&o.MaxBurst, 262144)
	def(&o.RecvSegment, 8192)
	def(&o.Window, 64)
	def(&o.Receives, 128)
	def(&o.MaxLoginSegment, 8192)
	if o.Vendor == "" {
		o.Vendor = "ISERTEST"
	}
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.CHAP.Algorithms == nil {
		o.CHAP.Algorithms = []int{5, 6, 7, 8}
	}
	return o
}
