package ublk

import (
	"strings"
	"testing"

	"iserblk/internal/block"
)

func TestAMarkTellsWhoseADeviceIsAndWhichOne(t *testing.T) {
	a, b, other := markFor("a"), markFor("a"), markFor("b")
	if !ownedBy(a, "a") || !ownedBy(b, "a") || ownedBy(a, "b") || ownedBy(other, "a") || ownedBy(mark(), "a") || ownedBy(0, "a") {
		t.Errorf("%x %x %x", a, b, other)
	}
	if a == b || cookieOf(a) == cookieOf(b) || cookieOf(a) == "" {
		t.Errorf("two devices are one: %q, %q", cookieOf(a), cookieOf(b))
	}
	if got := cookieOf(markFor("")); got != "" {
		t.Errorf("a device without an owner has the cookie %q", got)
	}
	if orphan(a) {
		t.Error("a device with an owner is taken for an orphan")
	}
	if m := markFor(""); m != mark() || m>>magicShift != markMagic {
		t.Errorf("mark %x", m)
	}
}

func TestARecoveredDeviceIsServedAsItWasMadeOrNotAtAll(t *testing.T) {
	limits := block.Limits{
		Size: 1 << 30, BlockSize: 512, PhysicalBlockSize: 4096, MaxTransfer: 1 << 19, Depth: 64, WriteCache: true,
	}
	for _, c := range []struct {
		name   string
		change func(i *devInfo, p *params, cfg *Config)
		want   string // in the error, "" for none
	}{
		{"as it was", func(*devInfo, *params, *Config) {}, ""},
		{"grown", func(_ *devInfo, _ *params, cfg *Config) { cfg.Limits.Size *= 2 }, ""},
		{"more room", func(_ *devInfo, _ *params, cfg *Config) { cfg.Limits.MaxTransfer *= 2 }, ""},
		{"fewer queues than asked for", func(i *devInfo, _ *params, _ *Config) { i.nrHWQueues = 1 }, ""},
		{"no cache any more", func(_ *devInfo, _ *params, cfg *Config) { cfg.Limits.WriteCache = false }, ""},
		{"smaller", func(_ *devInfo, _ *params, cfg *Config) { cfg.Limits.Size /= 2 }, "bytes in blocks"},
		{"other blocks", func(_ *devInfo, _ *params, cfg *Config) { cfg.Limits.BlockSize = 4096 }, "bytes in blocks"},
		{"smaller buffers", func(_ *devInfo, _ *params, cfg *Config) { cfg.Limits.MaxTransfer /= 2 }, "up to"},
		{"other depth", func(_ *devInfo, _ *params, cfg *Config) { cfg.Limits.Depth = 128 }, "queues of"},
		{"more queues", func(i *devInfo, _ *params, _ *Config) { i.nrHWQueues = 3 }, "queues of"},
		{"a cache that nobody would flush", func(_ *devInfo, p *params, _ *Config) { p.basic.attrs = 0 }, "flush"},
		{"FUA that nobody would heed", func(_ *devInfo, p *params, _ *Config) { p.basic.attrs |= attrFUA }, "FUA"},
		{"requests were not to be kept", func(i *devInfo, _ *params, _ *Config) { i.flags = featUserRecovery }, "otherwise"},
		{"shared memory", func(i *devInfo, _ *params, _ *Config) { i.flags |= featShmemZC }, "otherwise"},
	} {
		cfg := Config{Limits: limits, Queues: make([]QueueConfig, 2)}
		p := newParams(&limits)
		i := &devInfo{nrHWQueues: 2, queueDepth: limits.Depth, maxIOBufBytes: limits.MaxTransfer, flags: recoveryFlags}
		c.change(i, p, &cfg)
		switch err := fits(i, p, &cfg); {
		case (err == nil) != (c.want == ""):
			t.Errorf("%s: %v", c.name, err)
		case err != nil && !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
