package nbdkernel

import "testing"

func TestTheNumbersAreThoseOfTheHeaders(t *testing.T) {
	for name, n := range map[string][2]int{
		"NBD_CMD_CONNECT": {cmdConnect, 1}, "NBD_CMD_DISCONNECT": {cmdDisconnect, 2},
		"NBD_CMD_RECONFIGURE": {cmdReconfigure, 3}, "NBD_CMD_STATUS": {cmdStatus, 5},
		"NBD_ATTR_INDEX": {attrIndex, 1}, "NBD_ATTR_SIZE_BYTES": {attrSizeBytes, 2},
		"NBD_ATTR_BLOCK_SIZE_BYTES": {attrBlockSize, 3}, "NBD_ATTR_TIMEOUT": {attrTimeout, 4},
		"NBD_ATTR_SERVER_FLAGS": {attrServerFlags, 5}, "NBD_ATTR_CLIENT_FLAGS": {attrClientFlags, 6},
		"NBD_ATTR_SOCKETS": {attrSockets, 7}, "NBD_ATTR_DEAD_CONN_TIMEOUT": {attrDeadTimeout, 8},
		"NBD_ATTR_DEVICE_LIST": {attrDeviceList, 9}, "NBD_ATTR_BACKEND_IDENTIFIER": {attrBackend, 10},
		"NBD_SOCK_ITEM": {sockItem, 1}, "NBD_SOCK_FD": {sockFD, 1},
		"NBD_DEVICE_ITEM": {deviceItem, 1}, "NBD_DEVICE_INDEX": {deviceIndex, 1}, "NBD_DEVICE_CONNECTED": {deviceConnected, 2},
		"NBD_FLAG_HAS_FLAGS": {flagHasFlags, 0x1}, "NBD_FLAG_READ_ONLY": {flagReadOnly, 0x2},
		"NBD_FLAG_SEND_FLUSH": {flagFlush, 0x4}, "NBD_FLAG_SEND_FUA": {flagFUA, 0x8},
		"NBD_FLAG_ROTATIONAL": {flagRotational, 0x10}, "NBD_FLAG_SEND_TRIM": {flagTrim, 0x20},
		"NBD_FLAG_SEND_WRITE_ZEROES": {flagWriteZeroes, 0x40}, "NBD_FLAG_CAN_MULTI_CONN": {flagCanMultiConn, 0x100},
	} {
		if n[0] != n[1] {
			t.Errorf("%s is %d, not %d", name, n[1], n[0])
		}
	}
}
