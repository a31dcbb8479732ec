package iser

// Sizes of one slot, in bytes: whole cache lines, so that no two slots share one.
const (
	recvLen     = HeadersLen + maxData // as long as a receive may be
	bigStride   = (recvLen + 63) &^ 63
	smallStride = (HeadersLen + 63) &^ 63
)

// layout divides a connection's region: receive buffers, control slots with room for data, command slots for headers.
// Send slots are numbered from 0, commands first.
type layout struct {
	recvs, controls, commands int
}

func newLayout(o Options) layout {
	l := layout{recvs: o.maxCommands() + spareRecvs, controls: controlSends}
	if !o.Discovery {
		l.commands = o.maxCommands() + spareCommands
	}
	return l
}

func (l layout) sends() int { return l.controls + l.commands }

// sendDepth has room for the beacon that ends a connection.
func (l layout) sendDepth() int { return l.sends() + 1 }

func (l layout) size() int { return (l.recvs+l.controls)*bigStride + l.commands*smallStride }

func (l layout) recvOff(i int) int { return i * bigStride }

func (l layout) sendOff(slot int) int {
	if slot < l.commands {
		return (l.recvs+l.controls)*bigStride + slot*smallStride
	}
	return (l.recvs + slot - l.commands) * bigStride
}
