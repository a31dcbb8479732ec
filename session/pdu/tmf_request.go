package pdu

import "iserblk/session/scsi"

// Offsets in a Task Management Function Request (RFC 7143 11.5).
const (
	offRefTaskTag   = 20
	offRefCmdSN     = 32
	offTMFExpDataSN = 36
)

const functionMask = 0x7f

// TMFunction is a task management function (RFC 7143 11.5.1).
type TMFunction uint8

// Task management functions.
const (
	TMAbortTask        TMFunction = 1
	TMAbortTaskSet     TMFunction = 2
	TMClearACA         TMFunction = 3
	TMClearTaskSet     TMFunction = 4
	TMLogicalUnitReset TMFunction = 5
	TMTargetWarmReset  TMFunction = 6
	TMTargetColdReset  TMFunction = 7
	TMTaskReassign     TMFunction = 8
)

var tmFunctionNames = [...]string{
	TMAbortTask:        "abort task",
	TMAbortTaskSet:     "abort task set",
	TMClearACA:         "clear aca",
	TMClearTaskSet:     "clear task set",
	TMLogicalUnitReset: "logical unit reset",
	TMTargetWarmReset:  "target warm reset",
	TMTargetColdReset:  "target cold reset",
	TMTaskReassign:     "task reassign",
}

// String returns the name of the function.
func (f TMFunction) String() string {
	if int(f) < len(tmFunctionNames) && tmFunctionNames[f] != "" {
		return tmFunctionNames[f]
	}
	return hexName("function", uint8(f))
}

// TMFRequest is the view of a Task Management Function Request (RFC 7143 11.5).
type TMFRequest []byte

// TMFRequestFields are the parts of a Task Management Function Request.
type TMFRequestFields struct {
	Immediate  bool
	Function   TMFunction
	LUN        scsi.LUN
	ITT        ITT
	RefTaskTag ITT // the task to abort; ReservedITT for other functions
	CmdSN      CmdSN
	ExpStatSN  StatSN
	RefCmdSN   CmdSN // the CmdSN of the task to abort
	ExpDataSN  uint32
}

// Encode writes the header into the first BHSLen bytes of dst, which must
// have that many.
func (f TMFRequestFields) Encode(dst []byte) {
	p := begin(dst, OpTMFRequest, f.Immediate, reservedFlags|byte(f.Function)&functionMask, 0)
	putLUN(p, f.LUN)
	put32(p, offITT, uint32(f.ITT))
	put32(p, offRefTaskTag, uint32(f.RefTaskTag))
	put32(p, offCmdSN, uint32(f.CmdSN))
	put32(p, offExpStatSN, uint32(f.ExpStatSN))
	put32(p, offRefCmdSN, uint32(f.RefCmdSN))
	put32(p, offTMFExpDataSN, f.ExpDataSN)
}

// Validate reports an *Error unless p is a whole request without a data segment.
// dataLen counts the bytes that followed it, which may only be padding.
func (p TMFRequest) Validate(dataLen int) error {
	if err := check(p, OpTMFRequest, dataLen); err != nil {
		return err
	}
	return checkBare(p, OpTMFRequest)
}

// Immediate reports the I bit: the request consumes no CmdSN.
func (p TMFRequest) Immediate() bool { return BHS(p).Immediate() }

// Function returns what is to be done.
func (p TMFRequest) Function() TMFunction { return TMFunction(p[offFlags] & functionMask) }

// LUN returns the logical unit, for the functions that act on one.
func (p TMFRequest) LUN() scsi.LUN { return getLUN(p) }

// ITT returns the tag of the request itself.
func (p TMFRequest) ITT() ITT { return getITT(p) }

// RefTaskTag returns the tag of the task the function acts on.
func (p TMFRequest) RefTaskTag() ITT { return ITT(get32(p, offRefTaskTag)) }

// CmdSN returns the command sequence number.
func (p TMFRequest) CmdSN() CmdSN { return BHS(p).CmdSN() }

// ExpStatSN returns the acknowledged status.
func (p TMFRequest) ExpStatSN() StatSN { return BHS(p).ExpStatSN() }

// RefCmdSN returns the CmdSN of the task the function acts on.
func (p TMFRequest) RefCmdSN() CmdSN { return CmdSN(get32(p, offRefCmdSN)) }

// ExpDataSN returns the data sequence position for a task reassign.
func (p TMFRequest) ExpDataSN() uint32 { return get32(p, offTMFExpDataSN) }
