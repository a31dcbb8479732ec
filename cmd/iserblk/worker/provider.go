package worker

import (
	"context"
	"fmt"

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
