package nbdkernel

// What follows is linux/nbd-netlink.h and linux/nbd.h; a test pins the numbers.

// #define NBD_GENL_FAMILY_NAME "nbd"
// #define NBD_GENL_VERSION 0x1
const (
	familyName    = "nbd"
	familyVersion = 1
)

// Commands: enum { NBD_CMD_UNSPEC, NBD_CMD_CONNECT, NBD_CMD_DISCONNECT, NBD_CMD_RECONFIGURE, NBD_CMD_LINK_DEAD,
// NBD_CMD_STATUS }.
const (
	cmdConnect     = 1
	cmdDisconnect  = 2
	cmdReconfigure = 3
	cmdStatus      = 5
)

// Attributes of every command: enum { NBD_ATTR_UNSPEC, NBD_ATTR_INDEX, ... }.
const (
	attrIndex       = 1  // u32
	attrSizeBytes   = 2  // u64
	attrBlockSize   = 3  // u64
	attrTimeout     = 4  // u64, seconds
	attrServerFlags = 5  // u64
	attrClientFlags = 6  // u64
	attrSockets     = 7  // nested: NBD_SOCK_ITEM...
	attrDeadTimeout = 8  // u64, seconds
	attrDeviceList  = 9  // nested: NBD_DEVICE_ITEM...
	attrBackend     = 10 // string
)

// Within NBD_ATTR_SOCKETS, NBD_ATTR_DEVICE_LIST and their items.
const (
	sockItem        = 1 // nested
	sockFD          = 1 // u32
	deviceItem      = 1 // nested
	deviceIndex     = 1 // u32
	deviceConnected = 2 // u8
)

// Server flags (NBD_FLAG_*), the protocol's transmission flags.
const (
	flagHasFlags     = 1 << 0
	flagReadOnly     = 1 << 1
	flagFlush        = 1 << 2
	flagFUA          = 1 << 3
	flagRotational   = 1 << 4
	flagTrim         = 1 << 5
	flagWriteZeroes  = 1 << 6 // Linux 6.12; those before ignore it
	flagCanMultiConn = 1 << 8
)
