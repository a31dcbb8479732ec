package ublk

import "context"

// StopByID stops a device as another program would, by its number.
func StopByID(ctx context.Context, c *Control, id int) error {
	return c.simple(ctx, cmdStopDev, uint32(id), 0)
}
