package session

import (
	"time"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

// Command is one SCSI command and, when it is done, what became of it. It is preallocated and used again; from
// Nexus.Submit until Done it and its buffer belong to the nexus.
type Command struct {
	LUN    scsi.LUN
	CDB    [16]byte
	Dir    Direction
	Buf    Buffer        // len(Buf.Mem) is the expected data transfer length; empty when Dir is NoData
	Expiry time.Duration // how long the target may take before the command is aborted; 0 means Params.CommandTimeout
	Done   Completer

	// The result, valid in Done.

	// Err is nil when the target answered: Status counts. Else ErrNexusLost (the connection died: the command may or
	// may not have run, see Sent), ErrAborted (the target confirmed the abort of an overdue command: it did not and
	// will not run further), ErrTargetFailure (it ended without a status) or ErrOverflow (it had more data than fits).
	Err    error
	Status scsi.Status
	Sense  scsi.Sense
	// Short is how many bytes of Buf were not transferred (the underflow residual). A reader must not use the tail.
	Short uint32
	// Sent: the PDU left for the target, so with ErrNexusLost it may still execute there until the nexus is fenced.
	Sent bool

	link // private state of the nexus: ITT slot, CmdSN, deadlines, queue links
}

// Completer takes finished commands back, on the goroutine that drives the nexus. It may submit again, but not what
// ended with ErrNexusLost to the same nexus.
type Completer interface {
	CommandDone(c *Command)
}

// link is what the nexus keeps in a Command.
type link struct {
	prev, next *Command // in waiting or in sent
	deadline   time.Time
	cmdSN      pdu.CmdSN
	itt        pdu.ITT
	overdue    bool // an abort was sent

	terminated bool // the target has said that a reset or a clear ended the command: no answer will come
	disowned   bool // the target has said that there is no such task; its answer must come by deadline
}

// commandList is a FIFO of commands, linked through themselves.
type commandList struct {
	head, tail *Command
	n          int
}

func (l *commandList) push(c *Command) {
	c.prev, c.next = l.tail, nil
	if l.tail == nil {
		l.head = c
	} else {
		l.tail.next = c
	}
	l.tail = c
	l.n++
}

func (l *commandList) remove(c *Command) {
	if c.prev == nil {
		l.head = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		l.tail = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
	l.n--
}
