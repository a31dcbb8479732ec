//go:build !cgo || !linux

package rdmacore

import (
	"context"
	"fmt"

	"iserblk/verbs"
)

// Library says whether rdma-core can be used. This build never can: the error matches verbs.ErrNoProvider.
func Library() error {
	return &verbs.OpError{
		Op:   "load rdma-core",
		Hint: "build with CGO_ENABLED=1 on Linux",
		Err:  fmt.Errorf("%w: this binary was built without cgo", verbs.ErrNoProvider),
	}
}

// New fails with verbs.ErrNoProvider.
func New() (*Provider, error) { return nil, Library() }

// Dial fails with verbs.ErrNoProvider.
func (*Provider) Dial(context.Context, verbs.DialAttr) (verbs.Conn, error) { return nil, Library() }
