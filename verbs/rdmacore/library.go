//go:build cgo && linux

package rdmacore

// #cgo CFLAGS: -O2 -Wall
// #cgo LDFLAGS: -ldl
// #include "shim.h"
import "C"

import (
	"bytes"
	"fmt"
	"sync"
	"syscall"
	"unsafe"

	"iserblk/verbs"
)

// New loads rdma-core. Its error matches verbs.ErrNoProvider and says what is missing and how to get it.
func New() (*Provider, error) {
	if err := Library(); err != nil {
		return nil, err
	}
	return &Provider{}, nil
}

// Library says whether rdma-core can be used; it is loaded at the first call and stays loaded.
var Library = sync.OnceValue(loadLibrary)

func loadLibrary() error {
	var missing [256]byte
	if C.blk_load((*C.char)(unsafe.Pointer(&missing[0])), C.size_t(len(missing))) == 0 {
		return nil
	}
	text, _, _ := bytes.Cut(missing[:], []byte{0})
	return &verbs.OpError{
		Op:   "load rdma-core",
		Hint: "install rdma-core (Debian: apt install rdma-core libibverbs1 librdmacm1 ibverbs-providers)",
		Err:  fmt.Errorf("%w: %s", verbs.ErrNoProvider, text),
	}
}

// errno is the error of a shim function's result: nil unless it is negative.
func errno(r C.int) error {
	if r >= 0 {
		return nil
	}
	return syscall.Errno(-r)
}
