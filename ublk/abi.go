package ublk

import "structs"

// The kernel's side of ublk: include/uapi/linux/ublk_cmd.h. Only what this package uses.

// Control commands, UBLK_U_CMD_*: _IOR or _IOWR('u', nr, struct ublksrv_ctrl_cmd).
const (
	cmdGetDevInfo    = 0x80207502
	cmdAddDev        = 0xc0207504
	cmdDelDev        = 0xc0207505
	cmdStartDev      = 0xc0207506
	cmdStopDev       = 0xc0207507
	cmdSetParams     = 0xc0207508
	cmdGetParams     = 0x80207509
	cmdStartRecovery = 0xc0207510
	cmdEndRecovery   = 0xc0207511
	cmdGetDevInfo2   = 0x80207512
	cmdGetFeatures   = 0x80207513
	cmdDelDevAsync   = 0x80207514 // Linux 6.9, has no feature bit
	cmdUpdateSize    = 0xc0207515
	cmdTryStopDev    = 0xc0207517
	cmdRegBuf        = 0xc0207518 // Linux 7.1
)

// I/O commands, UBLK_U_IO_*: _IOWR('u', nr, struct ublksrv_io_cmd).
const (
	ioFetch          = 0xc0107520
	ioCommitAndFetch = 0xc0107521
)

// Features, UBLK_F_*: what GET_FEATURES tells and ADD_DEV asks for.
const (
	featUserRecovery   = 1 << 3
	featReissue        = 1 << 4
	featIoctlEncode    = 1 << 6
	featUpdateSize     = 1 << 10
	featSafeStop       = 1 << 17
	featNoAutoPartScan = 1 << 18
	featShmemZC        = 1 << 19
	featIODescSize     = 1 << 20
)

// Device states, UBLK_S_DEV_*.
const (
	stateDead     = 0
	stateLive     = 1
	stateQuiesced = 2 // its server has gone, requests wait
)

// resOK is the result of a FETCH that brings a request (UBLK_IO_RES_OK). UBLK_IO_RES_ABORT is -ENODEV.
const resOK = 0

const (
	maxQueueDepth = 4096     // UBLK_MAX_QUEUE_DEPTH: also the stride of the queues' descriptors in the mapping
	maxQueues     = 4096     // UBLK_MAX_NR_QUEUES
	maxIOBuf      = 32 << 20 // the kernel's limit of max_io_buf_bytes
	sectorShift   = 9        // all sectors in this interface have 512 bytes
	anyDevice     = ^uint32(0)
	noQueue       = ^uint16(0)
)

// ctrlCmd is struct ublksrv_ctrl_cmd, the data of a control command.
type ctrlCmd struct {
	_          structs.HostLayout
	devID      uint32
	queueID    uint16
	len        uint16
	addr       uint64
	data       uint64
	devPathLen uint16
	_          uint16
	_          uint32
}

// devInfo is struct ublksrv_ctrl_dev_info.
type devInfo struct {
	_             structs.HostLayout
	nrHWQueues    uint16
	queueDepth    uint16
	state         uint16
	_             uint16
	maxIOBufBytes uint32
	devID         uint32
	ublksrvPID    int32
	_             uint32
	flags         uint64
	ublksrvFlags  uint64 // ours: the kernel only keeps it
	ownerUID      uint32
	ownerGID      uint32
	_             uint64
	_             uint64
}

// ioDesc is struct ublksrv_io_desc, a request as the kernel describes it.
type ioDesc struct {
	_           structs.HostLayout
	opFlags     uint32 // op in the low 8 bits
	nrSectors   uint32
	startSector uint64
	addr        uint64
}

// Operations, UBLK_IO_OP_*.
const (
	opRead        = 0
	opWrite       = 1
	opFlush       = 2
	opDiscard     = 3
	opWriteZeroes = 5
)

// Flags in ioDesc.opFlags, UBLK_IO_F_*, as they stand in the whole word.
const (
	opMask    = 0xff
	ioFUA     = 1 << 13
	ioNoUnmap = 1 << 15
	ioShmemZC = 1 << 19 // addr is a place in a registered buffer
)

// shmemPlace takes ioDesc.addr apart, where it is the number of a registered buffer and a byte offset in it
// (UBLK_SHMEM_ZC_OFF_MASK, UBLK_SHMEM_ZC_IDX_OFF).
func shmemPlace(addr uint64) (buffer, off uint64) { return addr >> 32, addr & (1<<32 - 1) }

// shmemBufReg is struct ublk_shmem_buf_reg, memory to register. Pages are pinned until the device goes.
type shmemBufReg struct {
	_     structs.HostLayout
	addr  uint64
	len   uint64
	flags uint32
	_     uint32
}

// ioCmd is struct ublksrv_io_cmd, the data of an I/O command.
type ioCmd struct {
	_      structs.HostLayout
	queue  uint16
	tag    uint16
	result int32
	addr   uint64
}

// Attributes in paramBasic.attrs, UBLK_ATTR_*.
const (
	attrReadOnly      = 1 << 0
	attrRotational    = 1 << 1
	attrVolatileCache = 1 << 2
	attrFUA           = 1 << 3
)

// paramBasic is struct ublk_param_basic.
type paramBasic struct {
	_             structs.HostLayout
	attrs         uint32
	logicalShift  uint8
	physicalShift uint8
	ioOptShift    uint8
	ioMinShift    uint8
	maxSectors    uint32
	chunkSectors  uint32
	devSectors    uint64
	virtBoundary  uint64
}

// paramDiscard is struct ublk_param_discard.
type paramDiscard struct {
	_                     structs.HostLayout
	alignment             uint32
	granularity           uint32
	maxDiscardSectors     uint32
	maxWriteZeroesSectors uint32
	maxSegments           uint16
	_                     uint16
}

// paramDevt is struct ublk_param_devt, which only the kernel fills in.
type paramDevt struct {
	_                    structs.HostLayout
	charMajor, charMinor uint32
	diskMajor, diskMinor uint32
}

// paramDMAAlign is struct ublk_param_dma_align.
type paramDMAAlign struct {
	_         structs.HostLayout
	alignment uint32 // a mask
	_         uint32
}

// Parameter types, UBLK_PARAM_TYPE_*.
const (
	paramTypeBasic    = 1 << 0
	paramTypeDiscard  = 1 << 1
	paramTypeDevt     = 1 << 2
	paramTypeDMAAlign = 1 << 4
)

// params is struct ublk_params up to dma. Kernels take any length, and ignore the types they do not know.
type params struct {
	_       structs.HostLayout
	len     uint32
	types   uint32
	basic   paramBasic
	discard paramDiscard
	devt    paramDevt
	_       [32]byte // struct ublk_param_zoned
	dma     paramDMAAlign
	_       uint32 // pads to the struct's alignment, as before seg in the kernel's
}
