package nbdkernel

import (
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"

	"iserblk/internal/block"
)

// maxRange is the largest discard that the kernel is told: one request should not keep a target busy for minutes.
const maxRange = 1 << 30

// checkLimits refuses what the kernel would refuse or, worse, take.
func checkLimits(l *block.Limits) error {
	page := uint32(os.Getpagesize())
	switch {
	case l.BlockSize < 512 || l.BlockSize > page || l.BlockSize&(l.BlockSize-1) != 0:
		return fmt.Errorf("block size %d is not a power of two from 512 to %d", l.BlockSize, page)
	case l.Size == 0 || l.Size%uint64(l.BlockSize) != 0:
		return fmt.Errorf("size %d is not a multiple of the block size %d", l.Size, l.BlockSize)
	case l.MaxTransfer < page || l.MaxTransfer%1024 != 0:
		return fmt.Errorf("largest transfer %d is no number of KiB from %d", l.MaxTransfer, page)
	}
	return nil
}

// serverFlags says in the protocol's words what the unit can. A flush covers what was written over any socket.
func serverFlags(l *block.Limits) uint64 {
	f := uint64(flagHasFlags | flagCanMultiConn)
	set := func(yes bool, flag uint64) {
		if yes {
			f |= flag
		}
	}
	set(l.ReadOnly, flagReadOnly)
	set(l.Rotational, flagRotational)
	set(l.WriteCache, flagFlush)
	set(l.WriteCache && l.FUA, flagFUA)
	set(l.MaxDiscard > 0, flagTrim)
	set(l.MaxWriteZeroes > 0, flagWriteZeroes)
	return f
}

// seconds rounds up: the kernel counts whole ones, and 0 has a meaning of its own.
func seconds(d time.Duration) uint64 { return uint64((max(d, 0) + time.Second - 1) / time.Second) }

// connectAttrs is the body of NBD_CMD_CONNECT. Without an index the kernel picks a free device or makes one.
func connectAttrs(cfg *Config, fds []int) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.Uint64(attrSizeBytes, cfg.Limits.Size)
	e.Uint64(attrBlockSize, uint64(cfg.Limits.BlockSize))
	e.Uint64(attrServerFlags, serverFlags(&cfg.Limits))
	e.Uint64(attrClientFlags, 0)
	timeouts(e, cfg)
	e.String(attrBackend, cfg.Cookie)
	sockets(e, fds)
	return e.Encode()
}

// timeouts leaves TIMEOUT out where there is none: then the kernel never gives a request up (see Config.RequestTimeout).
func timeouts(e *netlink.AttributeEncoder, cfg *Config) {
	if t := seconds(cfg.RequestTimeout); t > 0 {
		e.Uint64(attrTimeout, t)
	}
	e.Uint64(attrDeadTimeout, seconds(cfg.DeadTimeout))
}

func sockets(e *netlink.AttributeEncoder, fds []int) {
	e.Nested(attrSockets, func(list *netlink.AttributeEncoder) error {
		for _, fd := range fds {
			list.Nested(sockItem, func(item *netlink.AttributeEncoder) error {
				item.Uint32(sockFD, uint32(fd))
				return nil
			})
		}
		return nil
	})
}

// reconfigureAttrs is the body of NBD_CMD_RECONFIGURE, which the kernel carries out only if the cookie is the device's.
func reconfigureAttrs(index int, cookie string, more func(*netlink.AttributeEncoder)) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.Uint32(attrIndex, uint32(index))
	e.String(attrBackend, cookie)
	more(e)
	return e.Encode()
}

func indexAttrs(index int) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.Uint32(attrIndex, uint32(index))
	return e.Encode()
}

// connectedIndex is the device that the answer to NBD_CMD_CONNECT names.
func connectedIndex(msgs []genetlink.Message) (int, error) {
	for _, m := range msgs {
		d, err := netlink.NewAttributeDecoder(m.Data)
		if err != nil {
			return 0, err
		}
		for d.Next() {
			if d.Type() == attrIndex {
				n := d.Uint32()
				return int(n), d.Err()
			}
		}
		if err := d.Err(); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("the kernel's answer names no device")
}

// DeviceStatus is what the kernel says of one device.
type DeviceStatus struct {
	Index     int
	Connected bool // it is in use, whether its sockets are alive or not
}

// deviceList is the answer to NBD_CMD_STATUS.
func deviceList(msgs []genetlink.Message) ([]DeviceStatus, error) {
	var all []DeviceStatus
	for _, m := range msgs {
		d, err := netlink.NewAttributeDecoder(m.Data)
		if err != nil {
			return nil, err
		}
		for d.Next() {
			if d.Type() == attrDeviceList {
				d.Nested(func(list *netlink.AttributeDecoder) error { return deviceItems(list, &all) })
			}
		}
		if err := d.Err(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func deviceItems(list *netlink.AttributeDecoder, all *[]DeviceStatus) error {
	for list.Next() {
		if list.Type() != deviceItem {
			continue
		}
		var s DeviceStatus
		list.Nested(func(item *netlink.AttributeDecoder) error {
			for item.Next() {
				switch item.Type() {
				case deviceIndex:
					s.Index = int(item.Uint32())
				case deviceConnected:
					s.Connected = item.Uint8() != 0
				}
			}
			return nil
		})
		*all = append(*all, s)
	}
	return nil
}
