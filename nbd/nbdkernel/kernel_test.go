package nbdkernel

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/genetlink/genltest"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// kernel is the driver's side of the netlink family, with one device in a sysfs of its own.
type kernel struct {
	t     *testing.T
	sysfs string

	mu       sync.Mutex
	sockets  []int // our ends of them; -1 when dead
	cookie   string
	commands []uint8
	refuse   map[uint8]int // errno by command
	slow     int           // so many new sockets are ignored, as the old ones are not known to be dead
}

const kernelIndex = 3

func newKernel(t *testing.T) (*kernel, *Control) {
	k := &kernel{t: t, sysfs: t.TempDir(), refuse: map[uint8]int{}}
	family := genetlink.Family{ID: 27, Version: familyVersion, Name: familyName}
	c := &Control{
		sysfs:  k.sysfs,
		number: func(string) (string, error) { return "43:96", nil },
		dial: func() (*genetlink.Conn, error) {
			return genltest.Dial(genltest.ServeFamily(family, k.serve)), nil
		},
	}
	t.Cleanup(func() { k.mu.Lock(); k.drop(); k.mu.Unlock() })
	return k, c
}

func (k *kernel) serve(m genetlink.Message, _ netlink.Message) ([]genetlink.Message, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.commands = append(k.commands, m.Header.Command)
	if errno := k.refuse[m.Header.Command]; errno != 0 {
		return nil, genltest.Error(errno)
	}
	a := k.decode(m.Data)
	switch m.Header.Command {
	case cmdConnect:
		return k.connect(a)
	case cmdReconfigure:
		return k.reconfigure(a)
	case cmdDisconnect:
		k.drop()
		return []genetlink.Message{{}}, nil
	case cmdStatus:
		return k.status()
	}
	return nil, genltest.Error(int(unix.EOPNOTSUPP))
}

type attrs struct {
	index   uint32
	size    uint64
	cookie  string
	sockets []int
}

func (k *kernel) decode(data []byte) (a attrs) {
	d, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		k.t.Error(err)
		return a
	}
	for d.Next() {
		switch d.Type() {
		case attrIndex:
			a.index = d.Uint32()
		case attrSizeBytes:
			a.size = d.Uint64()
		case attrBackend:
			a.cookie = d.String()
		case attrSockets:
			d.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					list.Nested(func(item *netlink.AttributeDecoder) error {
						for item.Next() {
							a.sockets = append(a.sockets, int(item.Uint32()))
						}
						return nil
					})
				}
				return nil
			})
		}
	}
	return a
}

func (k *kernel) connect(a attrs) ([]genetlink.Message, error) {
	k.cookie = a.cookie
	for _, fd := range a.sockets {
		k.sockets = append(k.sockets, k.hold(fd))
	}
	k.write("pid", strconv.Itoa(os.Getpid()))
	k.write("backend", a.cookie)
	k.write("dev", "43:96")
	k.write("size", strconv.FormatUint(a.size>>9, 10))
	k.write("queue/logical_block_size", "512")
	k.write("queue/max_hw_sectors_kb", "32768")
	k.write("queue/nr_requests", "128")
	e := netlink.NewAttributeEncoder()
	e.Uint32(attrIndex, kernelIndex)
	body, err := e.Encode()
	return []genetlink.Message{{Data: body}}, err
}

func (k *kernel) reconfigure(a attrs) ([]genetlink.Message, error) {
	if a.index != kernelIndex || a.cookie != k.cookie || k.cookie == "" {
		return nil, genltest.Error(int(unix.EINVAL))
	}
	if a.size > 0 {
		k.write("size", strconv.FormatUint(a.size>>9, 10))
	}
	for _, fd := range a.sockets {
		if k.slow > 0 {
			k.slow--
			continue
		}
		for i, old := range k.sockets {
			if old < 0 {
				k.sockets[i] = k.hold(fd)
				break
			}
		}
	}
	return []genetlink.Message{{}}, nil
}

// hold is what the kernel does with a descriptor: it takes the socket, not the number.
func (k *kernel) hold(fd int) int {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		k.t.Error(err)
	}
	return n
}

// kill ends a socket as the kernel does with one that timed out.
func (k *kernel) kill(i int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	unix.Close(k.sockets[i])
	k.sockets[i] = -1
}

// drop ends the device.
func (k *kernel) drop() {
	for _, fd := range k.sockets {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	k.sockets, k.cookie = nil, ""
	_ = os.RemoveAll(filepath.Join(k.sysfs, "block"))
}

func (k *kernel) alive() (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, fd := range k.sockets {
		if fd >= 0 {
			n++
		}
	}
	return n
}

func (k *kernel) write(name, value string) {
	file := filepath.Join(k.sysfs, "block", fmt.Sprintf("nbd%d", kernelIndex), name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		k.t.Error(err)
	}
	if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
		k.t.Error(err)
	}
}

// conn serves a socket by waiting for its end.
type conn struct {
	file *os.File
	done chan struct{}
}

func serve(fd int) *conn {
	_ = unix.SetNonblock(fd, true)
	c := &conn{file: os.NewFile(uintptr(fd), "ours"), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		defer c.file.Close()
		_, _ = io.Copy(io.Discard, c.file)
	}()
	return c
}

func (c *conn) Done() <-chan struct{} { return c.done }
func (c *conn) Stop()                 { c.file.Close() }

// status lists the one device.
func (k *kernel) status() ([]genetlink.Message, error) {
	e := netlink.NewAttributeEncoder()
	e.Nested(attrDeviceList, func(list *netlink.AttributeEncoder) error {
		for index, connected := range map[uint32]bool{kernelIndex: k.cookie != ""} {
			list.Nested(deviceItem, func(item *netlink.AttributeEncoder) error {
				item.Uint32(deviceIndex, index)
				item.Uint8(deviceConnected, map[bool]uint8{true: 1}[connected])
				return nil
			})
		}
		return nil
	})
	body, err := e.Encode()
	return []genetlink.Message{{Data: body}}, err
}
