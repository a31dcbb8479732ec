package isertarget

import (
	"time"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

// Hooks change what a target does. They are called from the goroutine of a connection, and may call the target.
type Hooks struct {
	// Command decides about each SCSI command before it is carried out. nil carries everything out.
	Command func(Command) Action
	// TaskManagement decides about each function before it is carried out. nil carries everything out.
	TaskManagement func(Function) TaskAction
	// Message gets each message that is about to be sent, both headers included, and returns what to send instead:
	// itself, a changed copy, nothing, more. nil sends everything as it is.
	Message func(Message) [][]byte
	// Login decides about each login that has succeeded: anything but success refuses it.
	Login func(Login) pdu.LoginStatus
}

// Command is a SCSI command as it arrived.
type Command struct {
	Seq       int    // place in the target's log, from 0
	Conn      int    // number of the connection, from 1
	Portal    string // address of the portal it came through
	Initiator string
	ISID      pdu.ISID
	LUN       scsi.LUN
	ITT       pdu.ITT
	CmdSN     pdu.CmdSN
	CDB       [pdu.CDBLen]byte
	EDTL      uint32 // bytes
	Immediate int    // bytes of immediate data
	Attr      pdu.TaskAttr
}

// Op is the operation code.
func (c Command) Op() byte { return c.CDB[0] }

// FUA tells whether a READ or WRITE (10, 12, 16) has the FUA bit.
func (c Command) FUA() bool { return c.CDB[1]&0x08 != 0 }

// Function is a task management function as it arrived.
type Function struct {
	Conn     int
	Function pdu.TMFunction
	LUN      scsi.LUN
	RefTag   pdu.ITT
}

// Message is one about to be sent.
type Message struct {
	Conn  int
	Bytes []byte // iSER header, BHS, data
}

// Opcode is that of the PDU.
func (m Message) Opcode() pdu.Opcode { return m.BHS().Opcode() }

// BHS is the PDU's header, to be read or changed in place.
func (m Message) BHS() pdu.BHS { return pdu.BHS(m.Bytes[headerLen:messageLen]) }

// Login is a login about to succeed.
type Login struct {
	Initiator string
	ISID      pdu.ISID
	Portal    string
	Discovery bool
}

// Action is what becomes of a command. The zero Action carries it out.
type Action struct {
	kind   actionKind
	status scsi.Status
	sense  *scsi.Sense
	delay  time.Duration
}

type actionKind uint8

const (
	doExecute actionKind = iota
	doAnswer
	doPark
	doParkPulled
	doIgnore
	doDelay
	doLate
	doDisconnect
)

// Execute carries the command out.
func Execute() Action { return Action{} }

// Answer answers with a status and nothing else: BUSY, TASK SET FULL.
func Answer(s scsi.Status) Action { return Action{kind: doAnswer, status: s} }

// Check answers with CHECK CONDITION and sense data.
func Check(s scsi.Sense) Action {
	return Action{kind: doAnswer, status: scsi.StatusCheckCondition, sense: &s}
}

// Park holds the command until Target.Release, before any of its data was fetched.
func Park() Action { return Action{kind: doPark} }

// ParkPulled holds a command until Target.Release when its data is already here: a write that will reach the medium
// although its connection is dead.
func ParkPulled() Action { return Action{kind: doParkPulled} }

// Ignore neither carries the command out nor answers it.
func Ignore() Action { return Action{kind: doIgnore} }

// Delay carries the command out later; others overtake it.
func Delay(d time.Duration) Action { return Action{kind: doDelay, delay: d} }

// Late carries the command out at once and answers it later.
func Late(d time.Duration) Action { return Action{kind: doLate, delay: d} }

// Disconnect ends the connection instead.
func Disconnect() Action { return Action{kind: doDisconnect} }

// TaskAction is what becomes of a task management function. The zero value carries it out.
type TaskAction struct {
	Ignore   bool            // neither carried out nor answered
	Refuse   bool            // answered with Response, not carried out
	Response pdu.TMResponse  // with Refuse
	Hold     <-chan struct{} // when not nil: wait for it to be closed before anything else
}

// Times is a Command hook that applies a to the first n commands that match.
func Times(n int, match func(Command) bool, a Action) func(Command) Action {
	return func(c Command) Action {
		if n == 0 || !match(c) {
			return Execute()
		}
		n--
		return a
	}
}
