package softroce

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// linkState is what the kernel says of a network device.
type linkState uint8

const (
	linkDown linkState = iota + 1
	linkUp
	linkGone
)

// linkWatch tells of changes of network devices by rtnetlink(7), which every user may read.
type linkWatch struct {
	file *os.File
	done chan struct{}
}

// watchLinks calls notify with the index of each network device that changes, from one goroutine, until close.
func watchLinks(notify func(index int, s linkState)) (*linkWatch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	w := &linkWatch{file: os.NewFile(uintptr(fd), "rtnetlink"), done: make(chan struct{})}
	go w.run(notify)
	return w, nil
}

func (w *linkWatch) run(notify func(int, linkState)) {
	defer close(w.done)
	buf := make([]byte, 1<<16)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			if errors.Is(err, unix.ENOBUFS) {
				continue // more changes than there was room for: the next one counts
			}
			return
		}
		parseLinks(buf[:n], notify)
	}
}

// parseLinks reads RTM_NEWLINK and RTM_DELLINK messages.
func parseLinks(b []byte, notify func(int, linkState)) {
	msgs, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return
	}
	for _, m := range msgs {
		if len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		info := (*unix.IfInfomsg)(unsafe.Pointer(unsafe.SliceData(m.Data)))
		switch m.Header.Type {
		case unix.RTM_NEWLINK:
			notify(int(info.Index), stateOf(info.Flags))
		case unix.RTM_DELLINK:
			notify(int(info.Index), linkGone)
		}
	}
}

// stateOf is what flags mean: a link is up if it is administratively, and has a carrier. Loopback devices have both.
func stateOf(flags uint32) linkState {
	if flags&unix.IFF_UP != 0 && flags&unix.IFF_LOWER_UP != 0 {
		return linkUp
	}
	return linkDown
}

func (w *linkWatch) close() {
	_ = w.file.Close()
	<-w.done
}
