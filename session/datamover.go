package session

import (
	"errors"

	"iserblk/session/pdu"
)

// ErrNoSlot is what a Datamover answers while every send slot is taken, or while what the commands before have asked for
// leaves no room for more data to come: nothing was queued, try again after Poll.
var ErrNoSlot = errors.New("no free send slot")

// ErrNoBuffer is what a Datamover answers for a command whose buffer it cannot open to the target: nothing was queued, and
// it will be no better next time. The connection is as it was.
var ErrNoBuffer = errors.New("the buffer cannot be opened to the target")

// Direction is which way a command's data goes, seen from the initiator.
type Direction uint8

// The directions of a command's data.
const (
	NoData Direction = iota
	In               // the target sends: a read
	Out              // the target fetches: a write
)

// Buffer is a command's data in memory that the datamover can expose to the target.
type Buffer struct {
	Mem    []byte
	Region uint32 // the region of the arena that Mem lies in
}

// Datamover carries the PDUs and the data of one connection: the primitives of RFC 5047 as a lane uses them. iser
// implements it. It has no locks: everything but Close is called by the one goroutine that drives the nexus. From
// within HandlePDU a nexus calls SendControl and DeallocateTask at most: whatever else a PDU gives rise to follows after
// Poll.
type Datamover interface {
	// SendCommand queues a SCSI Command PDU (Send_Control with Put_Data or Get_Data implied): buf becomes the task's
	// tagged buffer for dir, and the first immediate bytes of an Out buffer go along as immediate data (bhs already
	// says so in its DataSegmentLength). bhs is copied before it returns. ErrNoSlot means: not now, again after Poll; ErrNoBuffer: never.
	// Commands that are unanswered differ in the low 16 bits of their ITTs.
	SendCommand(bhs *[pdu.BHSLen]byte, dir Direction, buf Buffer, immediate int) error
	// DeallocateTask closes the buffer of a command that ends without a SCSI Response, which else does it
	// (Deallocate_Task_Resources). It comes before anybody else gets the buffer or the low half of the ITT.
	DeallocateTask(itt pdu.ITT)
	// SendControl queues any other PDU; bhs and data are copied before it returns. It has send slots of its own that
	// commands cannot use up, so it does not fail for want of one while the caller keeps at most ControlSlots
	// unanswered.
	SendControl(bhs *[pdu.BHSLen]byte, data []byte) error
	// Flush hands what was queued to the wire with one doorbell.
	Flush() error
	// Poll passes every PDU that has arrived to n in order (Control_Notify) and returns how many completions it
	// took; it never blocks. An error means that the connection is lost.
	Poll(n Notifier) (int, error)
	// Fd becomes readable after Arm when there is something to Poll. After Arm, Poll once more before sleeping.
	// It is negative where there is nothing to wait on, as in tests: then Poll is called every millisecond.
	Fd() int
	Arm() error
	// MaxCommands is how many commands may be unanswered: the receive buffers less those kept for other PDUs.
	MaxCommands() int
	// EnableFullFeature posts the receive buffers of the full-feature phase (Enable_Datamover). It must be called
	// before the login request that asks for that phase is sent.
	EnableFullFeature() error
	// Abort ends the connection at once: from its return on the target cannot begin to touch our memory, and what it
	// had begun ends when Drained says so. Poll must still be called.
	Abort()
	// Drained: the connection is dead and every work request has come back, so no buffer can be touched any more.
	Drained() bool
	// Close frees everything, within a bounded time. After it no buffer can be touched. Any goroutine may call it
	// once the driver has stopped.
	Close() error
}

// ControlSlots is how many PDUs other than commands a nexus may have on the wire.
const ControlSlots = 8

// Notifier takes arriving PDUs. bhs and data are valid only during the call.
type Notifier interface {
	HandlePDU(bhs pdu.BHS, data []byte)
}
