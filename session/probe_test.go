package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"iserblk/session/pdu"
	"iserblk/session/scsi"
)

// fakeUnit answers commands on a rig: by operation code and, for INQUIRY, by page.
type fakeUnit struct {
	*rig
	inquiry  []byte
	pages    map[byte][]byte
	cap16    []byte
	cap10    []byte
	mode6    []byte
	mode10   []byte
	luns     []byte
	groups   []byte
	pending  []scsi.Sense // CHECK CONDITIONs to come first
	statuses []scsi.Status
	silent   bool // says nothing about what it did not move
	seen     []byte
}

var (
	unknownCommand = scsi.Sense{Key: scsi.KeyIllegalRequest, ASC: 0x20}
	unknownField   = scsi.Sense{Key: scsi.KeyIllegalRequest, ASC: 0x24}
)

func newFakeUnit(t *testing.T) *fakeUnit {
	u := &fakeUnit{rig: newRig(t, nil), pages: map[byte][]byte{}}
	u.max = rigCmdSN + 1000
	u.n.maxCmdSN = u.max
	u.dm.onSend = u.onSend
	u.inquiry = standardInquiry(0, "LIO-ORG", "disk", "4.0")
	u.cap16 = make([]byte, 32)
	binary.BigEndian.PutUint64(u.cap16, 1<<20-1)
	binary.BigEndian.PutUint32(u.cap16[8:], 512)
	u.cap16[13] = 3                                  // eight logical blocks are a physical one
	binary.BigEndian.PutUint16(u.cap16[14:], 0xc000) // thin, reads zeroes
	u.mode6 = append([]byte{23, 0, 0x10, 0, 0x08, 18, 0x04}, make([]byte, 17)...)
	u.vpd(0x80, []byte("SERIAL-1"))
	u.vpd(0x83, deviceID(
		designator(0, 1, 2, []byte("LIO-ORG disk:SERIAL-1")),
		designator(0, 3, 1, append([]byte{0x60, 0x01, 0x40, 0x5a}, make([]byte, 12)...)),
		designator(1, 4, 1, []byte{0, 0, 0, 7}),
		designator(1, 5, 1, []byte{0, 0, 0, 2}),
	))
	limits := make([]byte, 60)
	binary.BigEndian.PutUint32(limits[4:], 2048)
	binary.BigEndian.PutUint32(limits[8:], 128)
	binary.BigEndian.PutUint32(limits[16:], 65536)
	binary.BigEndian.PutUint32(limits[20:], 1)
	binary.BigEndian.PutUint32(limits[24:], 8)
	binary.BigEndian.PutUint32(limits[28:], 1<<31|4)
	binary.BigEndian.PutUint64(limits[32:], 1<<16)
	u.vpd(0xb0, limits)
	u.vpd(0xb1, append([]byte{0, 1}, make([]byte, 58)...))
	u.vpd(0xb2, []byte{0, 0xc4, 2, 0})
	return u
}

func standardInquiry(kind byte, vendor, product, revision string) []byte {
	b := make([]byte, 36)
	b[0], b[2], b[4], b[5] = kind, 6, 31, 0x30
	copy(b[8:], vendor+"        ")
	copy(b[16:32], product+"                ")
	copy(b[32:], revision)
	return b
}

// vpd sets a page and lists it.
func (u *fakeUnit) vpd(page byte, body []byte) {
	u.pages[page] = append([]byte{0, page, byte(len(body) >> 8), byte(len(body))}, body...)
	list := []byte{0}
	for _, p := range []byte{0x80, 0x83, 0xb0, 0xb1, 0xb2} {
		if u.pages[p] != nil {
			list = append(list, p)
		}
	}
	u.pages[0] = append([]byte{0, 0, 0, byte(len(list))}, list...)
}

func designator(association, kind, codeSet byte, id []byte) []byte {
	return append([]byte{codeSet, association<<4 | kind, 0, byte(len(id))}, id...)
}

func deviceID(list ...[]byte) []byte { return bytes.Join(list, nil) }

func (u *fakeUnit) onSend(m *message) {
	if m.opcode() != pdu.OpSCSICommand {
		return
	}
	c := pdu.SCSICommand(m.bhs[:])
	u.seen = append(u.seen, c.CDB()[0])
	f := pdu.SCSIResponseFields{ITT: c.ITT()}
	switch {
	case len(u.pending) > 0:
		u.fail(f, u.pending[0])
		u.pending = u.pending[1:]
		return
	case len(u.statuses) > 0:
		f.Status = u.statuses[0]
		u.statuses = u.statuses[1:]
		u.respond(f)
		return
	}
	data, failed := u.execute(c.CDB())
	if failed != (scsi.Sense{}) {
		u.fail(f, failed)
		return
	}
	moved := copy(m.buf.Mem, data)
	if short := len(m.buf.Mem) - moved; short > 0 && !u.silent {
		f.Underflow, f.Residual = true, uint32(short)
	}
	u.respond(f)
}

func (u *fakeUnit) fail(f pdu.SCSIResponseFields, s scsi.Sense) {
	f.Status = scsi.StatusCheckCondition
	u.respond(f, pdu.AppendSenseData(nil, scsi.AppendFixedSense(nil, s))...)
}

func (u *fakeUnit) execute(cdb *[16]byte) ([]byte, scsi.Sense) {
	known := func(b []byte, unknown scsi.Sense) ([]byte, scsi.Sense) {
		if b == nil {
			return nil, unknown
		}
		return b, scsi.Sense{}
	}
	switch {
	case cdb[0] == 0x00:
		return nil, scsi.Sense{}
	case cdb[0] == 0x12 && cdb[1] == 1:
		page, failed := known(u.pages[cdb[2]], unknownField)
		alloc := int(binary.BigEndian.Uint16(cdb[3:]))
		return page[:min(len(page), alloc)], failed
	case cdb[0] == 0x12:
		return u.inquiry, scsi.Sense{}
	case cdb[0] == 0x9e:
		return known(u.cap16, unknownCommand)
	case cdb[0] == 0x25:
		return known(u.cap10, unknownCommand)
	case cdb[0] == 0x1a:
		return known(u.mode6, unknownCommand)
	case cdb[0] == 0x5a:
		return known(u.mode10, unknownCommand)
	case cdb[0] == 0xa0:
		return known(u.luns, unknownCommand)
	case cdb[0] == 0xa3:
		return known(u.groups, unknownField)
	}
	return nil, unknownCommand
}

func scratch() Buffer { return Buffer{Mem: bytes.Repeat([]byte{0xee}, ProbeSize), Region: 1} }

// probed runs f with a unit in a bubble of its own time.
func probed(t *testing.T, f func(t *testing.T, u *fakeUnit)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newFakeUnit(t)) })
}

func standardUnit() LogicalUnit {
	return LogicalUnit{
		LUN: scsi.LUN{0, 4}, WWN: "naa.6001405a" + strings.Repeat("0", 24), Serial: "SERIAL-1",
		Vendor: "LIO-ORG", Product: "disk", Revision: "4.0",
		Blocks: 1 << 20, BlockSize: 512, PhysicalBlockSize: 4096, MaxTransfer: 1 << 20, OptimalTransfer: 65536,
		WriteCache: true, FUA: true, Unmap: true, WriteSame: true, WriteSameUnmap: true, ReadsZeroes: true,
		MaxUnmapBlocks: 65536, MaxWriteSameBlocks: 65536, UnmapGranularity: 8, UnmapAlignment: 4,
		TPGS: 3, PortGroup: 2, RelativePort: 7, HasPortGroup: true,
	}
}

func TestProbeFindsOutWhatAUnitIs(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(u *fakeUnit, want *LogicalUnit)
	}{
		{"a disk of LIO", func(*fakeUnit, *LogicalUnit) {}},
		{"one that does not say what it leaves out", func(u *fakeUnit, _ *LogicalUnit) { u.silent = true }},
		{"one with attentions pending", func(u *fakeUnit, _ *LogicalUnit) {
			for _, q := range []uint8{0x29, 0x2a, 0x3f, 0x28} {
				u.pending = append(u.pending, scsi.Sense{Key: scsi.KeyUnitAttention, ASC: q})
			}
		}},
		{"one getting ready", func(u *fakeUnit, _ *LogicalUnit) {
			for range 10 {
				u.pending = append(u.pending, scsi.Sense{Key: scsi.KeyNotReady, ASC: 4, ASCQ: 1})
			}
		}},
		{"a busy one", func(u *fakeUnit, _ *LogicalUnit) {
			u.statuses = []scsi.Status{scsi.StatusBusy, scsi.StatusTaskSetFull, scsi.StatusBusy, scsi.StatusTaskAborted}
		}},
		{"one with the 10-byte commands only", func(u *fakeUnit, w *LogicalUnit) {
			u.cap16, u.cap10 = nil, []byte{0, 0x0f, 0xff, 0xff, 0, 0, 0x10, 0}
			w.Old, w.Blocks, w.BlockSize, w.PhysicalBlockSize = true, 1<<20, 4096, 4096
			w.MaxTransfer, w.OptimalTransfer = 8<<20, 512<<10
		}},
		{"one with the 10-byte MODE SENSE only", func(u *fakeUnit, w *LogicalUnit) {
			u.mode6, u.mode10 = nil, append([]byte{0, 26, 0, 0x80, 0, 0, 0, 0, 0x08, 18, 0}, make([]byte, 17)...)
			w.WriteCache, w.FUA, w.ReadOnly = false, false, true
		}},
		{"one without MODE SENSE", func(u *fakeUnit, w *LogicalUnit) {
			u.mode6 = nil
			w.WriteCache, w.FUA = false, false
		}},
		{"one without a caching page, write protected", func(u *fakeUnit, w *LogicalUnit) {
			u.mode6 = []byte{3, 0, 0x90, 0}
			w.WriteCache, w.ReadOnly = false, true
		}},
		{"one without product data", func(u *fakeUnit, w *LogicalUnit) {
			u.pages = map[byte][]byte{}
			*w = LogicalUnit{
				LUN: w.LUN, Vendor: w.Vendor, Product: w.Product, Revision: w.Revision, Blocks: w.Blocks, BlockSize: 512,
				PhysicalBlockSize: 4096, WriteCache: true, FUA: true, ReadsZeroes: true, TPGS: 3,
			}
		}},
		{"one that turns", func(u *fakeUnit, w *LogicalUnit) {
			u.vpd(0xb1, append([]byte{0x1c, 0x20}, make([]byte, 58)...))
			w.Rotational = true
		}},
		{"one with an UNMAP of any size", func(u *fakeUnit, w *LogicalUnit) {
			binary.BigEndian.PutUint32(u.pages[0xb0][4+16:], math.MaxUint32)
			w.MaxUnmapBlocks = 0
		}},
		{"one of no bounds", func(u *fakeUnit, w *LogicalUnit) {
			binary.BigEndian.PutUint32(u.pages[0xb0][4+4:], 0xfffffff8)
			binary.BigEndian.PutUint32(u.pages[0xb0][4+8:], 0xfffffff8)
			w.MaxTransfer, w.OptimalTransfer = 0, 0
		}},
		{"one that promises UNMAP and limits it to nothing", func(u *fakeUnit, w *LogicalUnit) {
			binary.BigEndian.PutUint32(u.pages[0xb0][4+16:], 0)
			w.Unmap, w.MaxUnmapBlocks = false, 0
		}},
		{"one of tgt", func(u *fakeUnit, w *LogicalUnit) {
			u.inquiry = standardInquiry(0, "IET", "VIRTUAL-DISK", "0001")
			binary.BigEndian.PutUint32(u.pages[0xb0][4+4:], 0)
			w.Vendor, w.Product, w.Revision, w.MaxTransfer = "IET", "VIRTUAL-DISK", "0001", 512<<10
		}},
		{"one with many names", func(u *fakeUnit, _ *LogicalUnit) {
			names := [][]byte{u.pages[0x83][4:]}
			for range 20 {
				names = append(names, designator(2, 8, 3, bytes.Repeat([]byte("n"), 200)))
			}
			u.vpd(0x83, deviceID(names...))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			probed(t, func(t *testing.T, u *fakeUnit) {
				want := standardUnit()
				c.change(u, &want)
				got, err := Probe(t.Context(), u.n, want.LUN, scratch())
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestProbeSaysWhyItFailed(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(u *fakeUnit)
		want   error
		words  string
	}{
		{"no unit, by sense", func(u *fakeUnit) { u.pending = []scsi.Sense{{Key: scsi.KeyIllegalRequest, ASC: 0x25}} }, ErrNoUnit, "not supported"},
		{"no unit, by qualifier", func(u *fakeUnit) { u.inquiry[0] = 0x7f }, ErrNoUnit, ""},
		{"no disk", func(u *fakeUnit) { u.inquiry[0] = 0x0c }, ErrNotDisk, "controller"},
		{"attentions without end", func(u *fakeUnit) {
			for range maxAttentions + 1 {
				u.pending = append(u.pending, scsi.Sense{Key: scsi.KeyUnitAttention, ASC: 0x29})
			}
		}, nil, "UNIT ATTENTION"},
		{"never ready", func(u *fakeUnit) {
			for range 10000 {
				u.pending = append(u.pending, scsi.Sense{Key: scsi.KeyNotReady, ASC: 4, ASCQ: 1})
			}
		}, nil, "becoming ready"},
		{"reserved by another", func(u *fakeUnit) { u.statuses = []scsi.Status{scsi.StatusReservationConflict} }, nil, "RESERVATION CONFLICT"},
		{"a capacity cut short", func(u *fakeUnit) { u.cap16 = u.cap16[:10] }, nil, "read capacity"},
		{"a block size of nothing", func(u *fakeUnit) { clear(u.cap16[8:12]) }, nil, "block size"},
		{"names that lie about their length", func(u *fakeUnit) { u.pages[0x83][7] = 200 }, nil, "0x83"},
		{"limits of another page", func(u *fakeUnit) { u.pages[0xb0][1] = 0xb1 }, nil, "0xb0"},
		{"inquiry data cut short", func(u *fakeUnit) { u.inquiry = u.inquiry[:20] }, nil, "inquiry"},
	} {
		t.Run(c.name, func(t *testing.T) {
			probed(t, func(t *testing.T, u *fakeUnit) {
				c.change(u)
				start := time.Now()
				_, err := Probe(t.Context(), u.n, scsi.LUN{0, 4}, scratch())
				if err == nil || !strings.Contains(err.Error(), c.words) || c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("error %v", err)
				}
				if time.Since(start) > time.Minute {
					t.Errorf("after %v", time.Since(start))
				}
			})
		})
	}
}

func TestProbeTellsWhatANonDiskIs(t *testing.T) {
	probed(t, func(t *testing.T, u *fakeUnit) {
		u.inquiry[0] = 0x0c
		got, err := Probe(t.Context(), u.n, scsi.LUN{}, scratch())
		if !errors.Is(err, ErrNotDisk) || got.Vendor != "LIO-ORG" || got.Type.String() != "controller" {
			t.Errorf("%v %+v", err, got)
		}
	})
}

func TestReportLUNsListsTheUnitsInTheTargetsOrder(t *testing.T) {
	probed(t, func(t *testing.T, u *fakeUnit) {
		u.luns = append([]byte{0, 0, 0, 24, 0, 0, 0, 0}, make([]byte, 24)...)
		u.luns[8+1], u.luns[16+1], u.luns[24], u.luns[25] = 3, 1, 0x41, 2
		got, err := ReportLUNs(t.Context(), u.n, scratch())
		if want := []scsi.LUN{{0, 3}, {0, 1}, {0x41, 2}}; err != nil || !cmp.Equal(got, want) {
			t.Errorf("%v, %v", got, err)
		}
		binary.BigEndian.PutUint32(u.luns, 1<<16)
		if got, err := ReportLUNs(t.Context(), u.n, scratch()); err == nil {
			t.Errorf("a list that does not fit: %v", got)
		}
	})
}

func TestPortGroupsAreRead(t *testing.T) {
	probed(t, func(t *testing.T, u *fakeUnit) {
		u.groups = []byte{0, 0, 0, 12, 0x81, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 7}
		got, err := ReportPortGroups(t.Context(), u.n, scsi.LUN{}, scratch())
		want := []scsi.PortGroup{{Preferred: true, State: scsi.AccessNonOptimized, ID: 2, Ports: []uint16{7}}}
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("%v, %v", got, err)
		}
		u.groups = nil
		if _, err := ReportPortGroups(t.Context(), u.n, scsi.LUN{}, scratch()); !unsupported(err) {
			t.Errorf("a unit without: %v", err)
		}
	})
}

func TestALostNexusEndsAProbe(t *testing.T) {
	probed(t, func(t *testing.T, u *fakeUnit) {
		u.dm.onSend = func(*message) { u.dm.pollErr, u.dm.drained = errCable, true }
		_, err := Probe(t.Context(), u.n, scsi.LUN{}, scratch())
		if !errors.Is(err, ErrNexusLost) || !errors.Is(err, errCable) {
			t.Errorf("error %v", err)
		}
	})
}
