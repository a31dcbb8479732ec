package main

import "iserblk/cmd/iserblk/worker"

// backend is what the commands stand on.
func backend() worker.Backend {
	return worker.Backend{
		NewEngine: worker.NewEngine, Discover: worker.Discover, LUNs: worker.LUNs, RemoveDevice: worker.RemoveDevice,
		Devices: worker.Devices, ChooseProvider: worker.ChooseProvider, Parked: worker.Parked, Orphans: worker.Orphans,
	}
}
