package nbdkernel

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"

	"iserblk/internal/block"
)

func limits() block.Limits {
	return block.Limits{
		Size: 64 << 20, BlockSize: 512, PhysicalBlockSize: 4096, MaxTransfer: 512 << 10, Depth: 64,
		WriteCache: true, FUA: true, MaxDiscard: 1 << 20, DiscardGranularity: 4096, MaxWriteZeroes: 1 << 20,
	}
}

func TestTheFlagsSayWhatTheUnitCan(t *testing.T) {
	tests := []struct {
		name   string
		change func(*block.Limits)
		want   uint64
	}{
		{"everything", func(*block.Limits) {}, 0x16d},
		{"no FUA", func(l *block.Limits) { l.FUA = false }, 0x165},
		{"FUA means nothing without a cache", func(l *block.Limits) { l.WriteCache = false }, 0x161},
		{"no discard", func(l *block.Limits) { l.MaxDiscard = 0 }, 0x14d},
		{"no write-zeroes", func(l *block.Limits) { l.MaxWriteZeroes = 0 }, 0x12d},
		{"read-only", func(l *block.Limits) { *l = block.Limits{ReadOnly: true} }, 0x103},
		{"rotational", func(l *block.Limits) { *l = block.Limits{Rotational: true} }, 0x111},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := limits()
			tt.change(&l)
			if got := serverFlags(&l); got != tt.want {
				t.Errorf("got %#x, want %#x", got, tt.want)
			}
		})
	}
}

// TestAConnectMessageIsWhatTheKernelReads pins the bytes: attribute headers are host order, length then type.
func TestAConnectMessageIsWhatTheKernelReads(t *testing.T) {
	cfg := Config{Limits: limits(), Cookie: "abc", DeadTimeout: 30 * time.Second, RequestTimeout: 1500 * time.Millisecond}
	got, err := connectAttrs(&cfg, []int{7, 9})
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{
		12, 0, 2, 0, 0, 0, 0, 4, 0, 0, 0, 0, // SIZE_BYTES
		12, 0, 3, 0, 0, 2, 0, 0, 0, 0, 0, 0, // BLOCK_SIZE_BYTES
		12, 0, 5, 0, 0x6d, 1, 0, 0, 0, 0, 0, 0, // SERVER_FLAGS
		12, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, // CLIENT_FLAGS
		12, 0, 4, 0, 2, 0, 0, 0, 0, 0, 0, 0, // TIMEOUT, rounded up
		12, 0, 8, 0, 30, 0, 0, 0, 0, 0, 0, 0, // DEAD_CONN_TIMEOUT
		8, 0, 10, 0, 'a', 'b', 'c', 0, // BACKEND_IDENTIFIER
		28, 0, 7, 0x80, // SOCKETS, nested
		12, 0, 1, 0x80, 8, 0, 1, 0, 7, 0, 0, 0,
		12, 0, 1, 0x80, 8, 0, 1, 0, 9, 0, 0, 0,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestWithoutARequestTimeoutTheKernelIsToldOfNone(t *testing.T) {
	cfg := Config{Limits: limits(), Cookie: "abc"}
	data, err := connectAttrs(&cfg, []int{3})
	if err != nil {
		t.Fatal(err)
	}
	d, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		t.Fatal(err)
	}
	for d.Next() {
		if d.Type() == attrTimeout {
			t.Error("TIMEOUT is there")
		}
	}
}

func TestAnswersAreRead(t *testing.T) {
	e := netlink.NewAttributeEncoder()
	e.Uint32(attrIndex, 5)
	body, _ := e.Encode()
	if n, err := connectedIndex([]genetlink.Message{{Data: body}}); n != 5 || err != nil {
		t.Errorf("index %d, %v", n, err)
	}
	if _, err := connectedIndex(nil); err == nil {
		t.Error("no message names a device")
	}
	e = netlink.NewAttributeEncoder()
	e.Nested(attrDeviceList, func(list *netlink.AttributeEncoder) error {
		for i := range uint32(2) {
			list.Nested(deviceItem, func(item *netlink.AttributeEncoder) error {
				item.Uint32(deviceIndex, i)
				item.Uint8(deviceConnected, uint8(i))
				return nil
			})
		}
		return nil
	})
	body, _ = e.Encode()
	got, err := deviceList([]genetlink.Message{{Data: body}})
	if d := cmp.Diff([]DeviceStatus{{0, false}, {1, true}}, got); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestLimitsThatTheKernelDoesNotTakeAreRefused(t *testing.T) {
	for name, change := range map[string]func(*block.Limits){
		"no size":        func(l *block.Limits) { l.Size = 0 },
		"half a block":   func(l *block.Limits) { l.Size = 4096 + 256 },
		"odd block":      func(l *block.Limits) { l.BlockSize = 520 },
		"huge block":     func(l *block.Limits) { l.BlockSize = 1 << 16 },
		"small transfer": func(l *block.Limits) { l.MaxTransfer = 2048 },
	} {
		l := limits()
		change(&l)
		if checkLimits(&l) == nil {
			t.Error(name, "is taken")
		}
	}
	l := limits()
	if err := checkLimits(&l); err != nil {
		t.Error(err)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0, 5, 0, 0, 0})
	f.Add([]byte{20, 0, 9, 0x80, 16, 0, 1, 0x80, 8, 0, 1, 0, 1, 0, 0, 0, 5, 0, 2, 0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		msgs := []genetlink.Message{{Data: data}}
		if n, err := connectedIndex(msgs); err == nil && n < 0 {
			t.Errorf("index %d", n)
		}
		_, _ = deviceList(msgs)
	})
}
