package rdmacore

import (
	"context"

	"iserblk/verbs"
)

var (
	_ verbs.Provider    = (*Provider)(nil)
	_ verbs.PortWatcher = (*Provider)(nil)
)

// Provider makes connections through rdma-core. All Providers of a process are the same: rdma-core itself keeps one
// context a device.
type Provider struct{}

// Name is "rdmacore".
func (*Provider) Name() string { return "rdmacore" }

// Devices lists the ports of all RDMA devices of this network namespace.
func (*Provider) Devices(ctx context.Context) ([]verbs.DeviceInfo, error) { return Devices(ctx) }

// ActivePorts names the ports that a connection can leave by now, as "rxe0/1".
func (*Provider) ActivePorts() []string { return sysClass.activePorts() }
