package worker

import (
	"context"
	"fmt"

	"iserblk/ublk"
	"iserblk/verbs"
	"iserblk/verbs/rdmacore"
)

// newProvider is the one place where a provider is chosen.
func newProvider(name string) (verbs.Provider, error) {
	switch name {
	case "", "auto", "rdmacore":
		return rdmacore.New()
	}
	return nil, fmt.Errorf("RDMA provider %q: %w; there is rdmacore", name, ErrUnsupported)
}

// Devices lists the RDMA devices that the provider sees (Backend.Devices).
func Devices(ctx context.Context, provider string) ([]verbs.DeviceInfo, error) {
	p, err := newProvider(provider)
	if err != nil {
		return nil, err
	}
	return p.Devices(ctx)
}

// RemoveDevice takes away what a worker that died left of its devices (Backend.RemoveDevice). The kernel has removed
// the block device by itself.
func RemoveDevice(ctx context.Context, _ Device) error {
	c, err := ublk.Open(ctx, ublk.Options{NoModprobe: true})
	if err != nil {
		return err
	}
	_, err = c.Reap(ctx)
	if cerr := c.Close(); err == nil {
		err = cerr
	}
	return err
}
