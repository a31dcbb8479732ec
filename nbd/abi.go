package nbd

// The wire, in network byte order (proto "Values"). Lengths are in bytes.

// Magic numbers.
const (
	magicServer      = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption      = 0x49484156454f5054 // "IHAVEOPT"
	magicOptionReply = 0x0003e889045565a9
	magicRequest     = 0x25609513
	magicExtRequest  = 0x21e41c71
	magicSimple      = 0x67446698
	magicChunk       = 0x668e33ef
	magicExtChunk    = 0x6e8a278c
)

// The server's greeting (proto "Newstyle negotiation"), and the client's answer, which is its flags.
//
//	u64 magicServer; u64 magicOption; u16 handshake flags
//	u32 client flags
const (
	greetingLen    = 18
	clientFlagsLen = 4
)

// Handshake flags, the same bits in both directions.
const (
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
)

// An option and the replies to it (proto "Fixed newstyle negotiation").
//
//	u64 magicOption; u32 option; u32 length; length bytes
//	u64 magicOptionReply; u32 option; u32 type; u32 length; length bytes
const (
	optionLen      = 16
	optionReplyLen = 20
)

// option is a kind of option (proto "Option types").
type option uint32

const (
	optExportName      option = 1
	optAbort           option = 2
	optList            option = 3
	optStartTLS        option = 5
	optInfo            option = 6
	optGo              option = 7
	optStructuredReply option = 8
	optListMetaContext option = 9
	optSetMetaContext  option = 10
	optExtendedHeaders option = 11
)

// replyType is a kind of reply to an option (proto "Option reply types"). Those with bit 31 are errors.
type replyType uint32

const (
	repAck         replyType = 1
	repServer      replyType = 2
	repInfo        replyType = 3
	repMetaContext replyType = 4

	repError         replyType = 1 << 31
	repErrUnsup                = repError + 1
	repErrPolicy               = repError + 2
	repErrInvalid              = repError + 3
	repErrTLSReqd              = repError + 5
	repErrUnknown              = repError + 6
	repErrShutdown             = repError + 7
	repErrTooBig               = repError + 9
	repErrExtHdrReqd           = repError + 10
)

// The answer to optExportName, which is none of the replies above.
//
//	u64 size; u16 transmission flags; 124 zeroes unless flagNoZeroes was agreed
const (
	exportReplyLen  = 10
	exportReplyZero = 124
)

// infoType is a kind of information about an export (proto "NBD_REP_INFO").
type infoType uint16

const (
	infoExport      infoType = 0 // u16 type; u64 size; u16 transmission flags
	infoName        infoType = 1 // u16 type; string
	infoDescription infoType = 2 // u16 type; string
	infoBlockSize   infoType = 3 // u16 type; u32 minimum; u32 preferred; u32 maximum payload
)

// Transmission flags.
const (
	FlagHasFlags        = 1 << 0
	FlagReadOnly        = 1 << 1
	FlagSendFlush       = 1 << 2
	FlagSendFUA         = 1 << 3
	FlagRotational      = 1 << 4
	FlagSendTrim        = 1 << 5
	FlagSendWriteZeroes = 1 << 6
	FlagSendDF          = 1 << 7
	FlagCanMultiConn    = 1 << 8
	FlagSendCache       = 1 << 10
	FlagSendFastZero    = 1 << 11
)

// A request (proto "Request message"), compact and extended.
//
//	u32 magicRequest;    u16 flags; u16 command; u64 cookie; u64 offset; u32 length
//	u32 magicExtRequest; u16 flags; u16 command; u64 cookie; u64 offset; u64 length
const (
	requestLen    = 28
	extRequestLen = 32
)

// command is what a request asks for (proto "Request types").
type command uint16

const (
	cmdRead        command = 0
	cmdWrite       command = 1
	cmdDisc        command = 2
	cmdFlush       command = 3
	cmdTrim        command = 4
	cmdCache       command = 5
	cmdWriteZeroes command = 6
	cmdBlockStatus command = 7
)

// Command flags.
const (
	cmdFlagFUA        = 1 << 0
	cmdFlagNoHole     = 1 << 1
	cmdFlagDF         = 1 << 2
	cmdFlagReqOne     = 1 << 3
	cmdFlagFastZero   = 1 << 4
	cmdFlagPayloadLen = 1 << 5
)

// Replies (proto "Simple reply message", "Structured reply chunk message", "Extended reply chunk message").
//
//	u32 magicSimple;   u32 error; u64 cookie
//	u32 magicChunk;    u16 flags; u16 type; u64 cookie; u32 length
//	u32 magicExtChunk; u16 flags; u16 type; u64 cookie; u64 offset; u64 length
const (
	simpleLen   = 16
	chunkLen    = 20
	extChunkLen = 32
)

const chunkFlagDone = 1 << 0

// chunkType is a kind of chunk (proto "Structured reply types").
type chunkType uint16

const (
	chunkNone           chunkType = 0
	chunkOffsetData     chunkType = 1         // u64 offset; data
	chunkBlockStatus    chunkType = 5         // u32 context; then u32 length, u32 status each
	chunkBlockStatusExt chunkType = 6         // u32 context; u32 count; then u64 length, u64 status each
	chunkError          chunkType = 1<<15 + 1 // u32 error; u16 message length; message
)

// What follows a chunk's header and comes before its data, and what a descriptor takes.
const (
	offsetDataLen     = 8
	blockStatusLen    = 4
	blockStatusExtLen = 8
	descriptorLen     = 8
	descriptorExtLen  = 16
	errorLen          = 6
)

// Bits of a base:allocation status.
const (
	stateHole = 1 << 0
	stateZero = 1 << 1
)

// The one metadata context that there is, and its number on every connection.
const (
	contextName = "base:allocation"
	contextID   = 1
)

// code is an error in a reply (proto "Error values").
type code uint32

const (
	codeOK        code = 0
	codePerm      code = 1
	codeIO        code = 5
	codeNoMem     code = 12
	codeInval     code = 22
	codeNoSpace   code = 28
	codeOverflow  code = 75
	codeNotSup    code = 95
	codeShutdown  code = 108
	maxStringSize      = 4096 // of a name or message
)
