package session

import (
	"time"

	"iserblk/session/pdu"
)

// state is where in its life a nexus is.
type state uint8

const (
	stateUp      state = iota
	stateLeaving       // a logout was asked for: what is outstanding may end, nothing new is sent
	stateLost          // the connection is dead; its buffers may still be touched
	stateDead          // nothing can be touched any more, everything was given back
)

// Nexus is one I_T nexus in its full-feature phase: one session of one connection (RFC 7143 4.4.3). Nothing in it
// blocks, waits or runs by itself: it moves when its driver calls Poll, Submit, Flush and Tick. All methods but Close
// belong to that one goroutine. It is a lane's Source.
type Nexus struct {
	// OnLost is called once, when the connection has died or was given up, on the driver's goroutine and before any
	// command ends with ErrNexusLost. It is not called for the end that Logout asked for.
	OnLost func(cause error)

	dm     Datamover
	params Params
	neg    Negotiated
	limit  int // bytes a write may have to go along with its command

	state   state
	cause   error // why it was lost
	pending error // a failure that was noticed inside Datamover.Poll
	inPoll  bool
	dirty   bool // something was queued since the last Flush

	cmdSN     pdu.CmdSN // of the next command
	maxCmdSN  pdu.CmdSN // the last that the target takes now
	expStatSN pdu.StatSN

	tasks    []task   // by slot
	free     []uint16 // slots of tasks, a stack
	waiting  commandList
	sent     commandList // in the order of CmdSN
	controls [ControlSlots]control
	echo     echo
	leaving  leaving
	aborts   int

	clocks clocks
	stats  Stats
	bhs    [pdu.BHSLen]byte
}

// task is one slot for a command. Its tag is slot | generation<<16, so that an answer to a former user of the slot
// is told from one to the present user.
type task struct {
	cmd        *Command // nil when the slot is free, or the command was answered while its abort was on its way
	generation uint16
	aborting   bool // the slot must not be used again before the abort was answered
}

// Stats counts what a nexus has done since login.
type Stats struct {
	Commands       uint64 // sent
	Completed      uint64 // answered
	Aborted        uint64 // ended by an abort
	ImmediateBytes uint64 // sent along with commands
	PDUs           uint64 // received, of every kind
	Pings          uint64 // sent
	TargetPings    uint64 // answered
	WindowClosed   uint64 // times that a command had to wait for the target's window
	SlotsFull      uint64 // times that a command had to wait for a slot, or for room for its data
	Outstanding    int    // now
	Waiting        int    // now
}

// generationShift is where a tag's generation begins.
const generationShift = 16

// maxTasks keeps every slot number below 0xffff, so that no tag is the reserved one.
const maxTasks = 1<<generationShift - 2*ControlSlots

func newNexus(dm Datamover, p Params, neg Negotiated, cmdSN, maxCmdSN pdu.CmdSN, expStatSN pdu.StatSN) *Nexus {
	n := &Nexus{
		dm: dm, params: p, neg: neg, limit: neg.immediateLimit(),
		cmdSN: cmdSN, maxCmdSN: maxCmdSN, expStatSN: expStatSN,
	}
	slots := min(max(dm.MaxCommands(), 0), maxTasks)
	n.tasks = make([]task, slots)
	n.free = make([]uint16, slots)
	for i := range n.free {
		n.free[i] = uint16(slots - 1 - i)
	}
	n.clocks.restart(time.Now())
	return n
}

// Negotiated is what the login agreed on.
func (n *Nexus) Negotiated() Negotiated { return n.neg }

// Target is the target's name.
func (n *Nexus) Target() string { return n.params.TargetName }

// MaxCommands is how many commands may be with the target at a time, if its window allows as many.
func (n *Nexus) MaxCommands() int { return len(n.tasks) }

// Cause is why the nexus was lost, nil while it is not.
func (n *Nexus) Cause() error { return n.cause }

// Stats is a copy of the counters.
func (n *Nexus) Stats() Stats {
	s := n.stats
	s.Outstanding, s.Waiting = n.sent.n, n.waiting.n
	return s
}

// Poll handles what has arrived and completed, and sends what could not be sent before. It never blocks. It returns
// how much was done, in completions.
func (n *Nexus) Poll() int {
	if n.state == stateDead {
		return 0
	}
	before := n.stats.PDUs
	n.inPoll = true
	got, err := n.dm.Poll(n)
	n.inPoll = false
	if n.stats.PDUs != before {
		n.clocks.heard, n.clocks.pinging = time.Now(), false
	}
	n.afterPoll(err)
	return got
}

// afterPoll does what HandlePDU could not, and what became possible.
func (n *Nexus) afterPoll(err error) {
	switch {
	case n.state == stateLost:
		n.reap()
	case n.pending != nil:
		n.lose(n.pending)
	case err != nil:
		n.lose(err)
	default:
		n.pump()
		n.sendEcho()
		n.sendLogout()
	}
}

// Flush hands what was queued to the wire.
func (n *Nexus) Flush() {
	if !n.dirty || n.state >= stateLost {
		return
	}
	n.dirty = false
	if err := n.dm.Flush(); err != nil {
		n.lose(err)
	}
}

// Arm asks for a wake-up on Fd. It reports that there is something to do already.
func (n *Nexus) Arm() bool {
	if n.state == stateDead {
		return false
	}
	if err := n.dm.Arm(); err != nil && n.state < stateLost {
		n.lose(err)
		return true
	}
	return n.Poll() > 0 || n.dirty
}

// Fd becomes readable after Arm when there is something to Poll.
func (n *Nexus) Fd() int { return n.dm.Fd() }

// Busy: commands are with the target.
func (n *Nexus) Busy() bool { return n.sent.n > 0 }
