package scsi

// ascKey packs an additional sense code and its qualifier.
func ascKey(asc, ascq uint8) uint16 { return uint16(asc)<<8 | uint16(ascq) }

// ascName returns the meaning of the pairs a block initiator meets, or "".
// Families whose qualifiers say the same thing to us share a fallback name.
func ascName(asc, ascq uint8) string {
	if name, ok := ascNames[ascKey(asc, ascq)]; ok {
		return name
	}
	return ascFamilies[asc]
}

var ascFamilies = map[uint8]string{
	0x04: "logical unit not ready",
	0x10: "protection information error",
	0x11: "unrecovered read error",
	0x20: "invalid command",
	0x24: "invalid field in cdb",
	0x26: "invalid field in parameter list",
	0x27: "write protected",
	0x29: "reset occurred",
	0x2a: "parameters changed",
	0x3f: "target operating conditions changed",
	0x44: "internal target failure",
}

var ascNames = map[uint16]string{
	0x0400: "not ready, cause not reportable",
	0x0401: "becoming ready",
	0x0402: "not ready, initializing command required",
	0x0403: "not ready, manual intervention required",
	0x0404: "not ready, format in progress",
	0x0407: "not ready, operation in progress",
	0x040a: "not accessible, asymmetric access state transition",
	0x040b: "not accessible, target port in standby state",
	0x040c: "not accessible, target port in unavailable state",
	0x0412: "not ready, offline",
	0x041b: "not ready, sanitize in progress",
	0x0800: "logical unit communication failure",
	0x0801: "logical unit communication time-out",
	0x0c00: "write error",
	0x0c0d: "write error, not enough unsolicited data",
	0x0d00: "error detected by third party",
	0x1001: "logical block guard check failed",
	0x1002: "logical block application tag check failed",
	0x1003: "logical block reference tag check failed",
	0x1100: "unrecovered read error",
	0x1104: "unrecovered read error, auto reallocate failed",
	0x1a00: "parameter list length error",
	0x1d00: "miscompare during verify",
	0x2000: "invalid command operation code",
	0x2100: "lba out of range",
	0x2400: "invalid field in cdb",
	0x2500: "logical unit not supported",
	0x2600: "invalid field in parameter list",
	0x2700: "write protected",
	0x2701: "hardware write protected",
	0x2702: "logical unit software write protected",
	0x2707: "space allocation failed write protect",
	0x2800: "medium may have changed",
	0x2900: "power on, reset or bus device reset occurred",
	0x2901: "power on occurred",
	0x2902: "bus reset occurred",
	0x2903: "bus device reset function occurred",
	0x2904: "device internal reset",
	0x2907: "i_t nexus loss occurred",
	0x2a01: "mode parameters changed",
	0x2a02: "log parameters changed",
	0x2a03: "reservations preempted",
	0x2a04: "reservations released",
	0x2a05: "registrations preempted",
	0x2a06: "asymmetric access state changed",
	0x2a07: "implicit asymmetric access state transition failed",
	0x2a09: "capacity data has changed",
	0x2e00: "insufficient time for operation",
	0x2e01: "command timeout before processing",
	0x2e02: "command timeout during processing",
	0x2f00: "commands cleared by another initiator",
	0x2f01: "commands cleared by power loss notification",
	0x2f02: "commands cleared by device server",
	0x3100: "medium format corrupted",
	0x3807: "thin provisioning soft threshold reached",
	0x3a00: "medium not present",
	0x3e00: "logical unit has not self-configured yet",
	0x3e01: "logical unit failure",
	0x3f03: "inquiry data has changed",
	0x3f05: "device identifier changed",
	0x3f0a: "volume set created or modified",
	0x3f0e: "reported luns data has changed",
	0x4400: "internal target failure",
	0x4700: "scsi parity error",
	0x4b00: "data phase error",
	0x4e00: "overlapped commands attempted",
	0x5500: "system resource failure",
	0x5503: "insufficient resources",
	0x5504: "insufficient registration resources",
}
