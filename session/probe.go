package session

import (
	"context"
	"errors"
	"fmt"
	"math"

	"iserblk/session/scsi"
)

// ProbeSize is how much memory Probe and its kin want for what a unit says about itself, in bytes.
const ProbeSize = 16 << 10

// LogicalUnit is what a unit says about itself.
type LogicalUnit struct {
	LUN  scsi.LUN
	Type DeviceType
	// Old: the unit has the 10-byte commands only, and so no more than 2^32 blocks.
	Old bool

	// WWN is the best name that the unit has for itself, such as "naa.6001405...", and the same by every path to it;
	// "" when it has none.
	WWN      string
	Serial   string // "" when it has none
	Vendor   string
	Product  string
	Revision string

	Blocks            uint64 // logical blocks; 0 for what is no disk
	BlockSize         uint32 // bytes
	PhysicalBlockSize uint32 // bytes
	MaxTransfer       uint32 // bytes; 0: no limit known
	OptimalTransfer   uint32 // bytes; 0: unknown
	Rotational        bool

	ReadOnly   bool
	WriteCache bool // completed writes may be volatile until SYNCHRONIZE CACHE
	FUA        bool // DPOFUA: WRITE honours the FUA bit

	Unmap              bool   // UNMAP works
	WriteSame          bool   // WRITE SAME (16) works
	WriteSameUnmap     bool   // WRITE SAME (16) can unmap
	ReadsZeroes        bool   // unmapped blocks read as zeroes
	MaxUnmapBlocks     uint64 // of one UNMAP; 0: no limit
	MaxWriteSameBlocks uint64 // of one WRITE SAME; 0: no limit said
	UnmapGranularity   uint32 // blocks; 0: unknown
	UnmapAlignment     uint32 // first block of the first granule

	TPGS         uint8 // ALUA: bit 0 implicit, bit 1 explicit
	PortGroup    uint16
	RelativePort uint16
	HasPortGroup bool // PortGroup and RelativePort mean something
}

// Causes of a failed Probe.
var (
	// ErrNoUnit: the target has no unit at that LUN.
	ErrNoUnit = errors.New("no such logical unit")
	// ErrNotDisk: the unit is something else, such as a controller.
	ErrNotDisk = errors.New("not a disk")
)

// Probe asks the unit at lun what it is, driving n on this goroutine. It waits a bounded time for a unit that is
// getting ready, and takes whatever UNIT ATTENTIONs are pending. buf is scratch memory of at least ProbeSize bytes
// that the datamover can expose. With an error comes what was found out before it. Errors are *Error; inside are
// ErrNoUnit, ErrNotDisk, a *StatusError, a *scsi.Error, or those of Do.
func Probe(ctx context.Context, n *Nexus, lun scsi.LUN, buf Buffer) (LogicalUnit, error) {
	return ProbeBy(ctx, driven{n}, lun, buf)
}

// ProbeBy is Probe for a nexus that something else drives.
func ProbeBy(ctx context.Context, by Carrier, lun scsi.LUN, buf Buffer) (LogicalUnit, error) {
	p := newProber(ctx, by, lun, buf)
	u := LogicalUnit{LUN: lun}
	for _, step := range [...]func(*LogicalUnit) error{
		p.ready, p.inquire, p.identify, beDisk, p.capacity, p.limits, p.mode,
	} {
		if err := step(&u); err != nil {
			return u, p.fail("probe", err)
		}
	}
	quirks(&u)
	return u, nil
}

// ready waits until the unit takes commands.
func (p *prober) ready(*LogicalUnit) error {
	scsi.TestUnitReady(&p.cmd.CDB)
	_, err := p.run("TEST UNIT READY", 0)
	return err
}

func (p *prober) inquire(u *LogicalUnit) error {
	const alloc = 96
	scsi.Inquiry(&p.cmd.CDB, alloc)
	data, err := p.run("INQUIRY", alloc)
	if err != nil {
		return err
	}
	i, err := scsi.ParseInquiry(data)
	if err != nil {
		return err
	}
	if !i.Present() {
		return ErrNoUnit
	}
	u.Type, u.TPGS = DeviceType(i.Type), i.TPGS
	u.Vendor, u.Product, u.Revision = i.Vendor, i.Product, i.Revision
	return nil
}

// identify reads the names. A unit may have none of the pages; a page that lies is an error, since whoever asks wants
// to be sure of the unit's identity.
func (p *prober) identify(u *LogicalUnit) error {
	pages, err := p.page(scsi.VPDSupportedPages)
	if err != nil || pages == nil {
		return err
	}
	supported, err := scsi.ParseSupportedPages(pages)
	if err != nil {
		return err
	}
	for _, page := range supported {
		p.pages[page] = true
	}
	if err := p.parsePage(scsi.VPDUnitSerial, into(&u.Serial, scsi.ParseUnitSerial)); err != nil {
		return err
	}
	return p.parsePage(scsi.VPDDeviceID, u.setNames)
}

func (u *LogicalUnit) setNames(page []byte) error {
	list, err := scsi.ParseDeviceID(page)
	if err != nil {
		return err
	}
	if d, ok := scsi.LUDesignator(list); ok {
		u.WWN = d.String()
	}
	u.PortGroup, u.RelativePort, u.HasPortGroup = scsi.PortGroupOf(list)
	return nil
}

func beDisk(u *LogicalUnit) error {
	if !u.Type.IsDisk() {
		return fmt.Errorf("%w: %v", ErrNotDisk, u.Type)
	}
	return nil
}

// capacity prefers the 16-byte command, which alone tells physical blocks and thin provisioning.
func (p *prober) capacity(u *LogicalUnit) error {
	c, err := p.readCapacity(u)
	if err != nil {
		return err
	}
	u.Blocks, u.BlockSize, u.PhysicalBlockSize = c.Blocks, c.BlockSize, c.PhysicalBlockSize()
	u.ReadsZeroes = c.ReadZeroes
	return nil
}

func (p *prober) readCapacity(u *LogicalUnit) (scsi.Capacity, error) {
	scsi.ReadCapacity16(&p.cmd.CDB, scsi.Capacity16Len)
	data, err := p.run("READ CAPACITY (16)", scsi.Capacity16Len)
	if err == nil {
		return scsi.ParseCapacity16(data)
	}
	if !unsupported(err) {
		return scsi.Capacity{}, err
	}
	u.Old = true
	scsi.ReadCapacity10(&p.cmd.CDB)
	if data, err = p.run("READ CAPACITY (10)", scsi.Capacity10Len); err != nil {
		return scsi.Capacity{}, err
	}
	return scsi.ParseCapacity10(data)
}

// limits reads the pages that only bound what may be asked of the unit.
func (p *prober) limits(u *LogicalUnit) error {
	var l scsi.BlockLimits
	var v scsi.Provisioning
	var d scsi.BlockDevice
	err := errors.Join(
		p.parsePage(scsi.VPDBlockLimits, into(&l, scsi.ParseBlockLimits)),
		p.parsePage(scsi.VPDLogicalProvisioning, into(&v, scsi.ParseProvisioning)),
		p.parsePage(scsi.VPDBlockDevice, into(&d, scsi.ParseBlockDevice)),
	)
	if err != nil {
		return err
	}
	u.Rotational = d.RotationRate > scsi.RotationNone
	u.MaxTransfer = inBytes(l.MaxTransfer, u.BlockSize)
	u.OptimalTransfer = inBytes(l.OptimalTransfer, u.BlockSize)
	u.setProvisioning(l, v)
	return nil
}

// setProvisioning: UNMAP needs both the promise of page B2 and a limit in page B0 that is not zero (SBC-3 6.6.3).
func (u *LogicalUnit) setProvisioning(l scsi.BlockLimits, v scsi.Provisioning) {
	u.Unmap = v.Unmap && l.MaxUnmapLBAs > 0 && l.MaxUnmapDescriptors > 0
	if l.MaxUnmapLBAs != math.MaxUint32 {
		u.MaxUnmapBlocks = uint64(l.MaxUnmapLBAs)
	}
	u.UnmapGranularity = l.OptimalUnmapGranularity
	if l.UnmapAlignmentValid {
		u.UnmapAlignment = l.UnmapAlignment
	}
	u.WriteSameUnmap = v.WriteSame16
	u.WriteSame = v.WriteSame16 || l.MaxWriteSame > 0
	u.MaxWriteSameBlocks = l.MaxWriteSame
	u.ReadsZeroes = u.ReadsZeroes || v.ReadZeroes
}

// inBytes turns a limit in blocks into bytes. One that no transfer comes near, as LIO has for a disk in memory, is none.
func inBytes(blocks, size uint32) uint32 {
	if n := uint64(blocks) * uint64(size); n < math.MaxUint32 {
		return uint32(n)
	}
	return 0
}

// mode reads write protection and the write cache. A unit without the caching page counts as one without a cache, as
// every initiator has it.
func (p *prober) mode(u *LogicalUnit) error {
	m, err := p.modeSense()
	if unsupported(err) {
		return nil
	}
	if err != nil && !errors.Is(err, scsi.ErrNoCachingPage) {
		return err
	}
	u.ReadOnly, u.WriteCache, u.FUA = m.WriteProtect, m.WriteCache, m.DPOFUA
	return nil
}

func (p *prober) modeSense() (scsi.Mode, error) {
	const alloc = 192
	scsi.ModeSense6(&p.cmd.CDB, scsi.PageCaching, alloc)
	data, err := p.run("MODE SENSE (6)", alloc)
	if err == nil {
		return scsi.ParseMode6(data)
	}
	if !unsupported(err) {
		return scsi.Mode{}, err
	}
	scsi.ModeSense10(&p.cmd.CDB, scsi.PageCaching, alloc)
	if data, err = p.run("MODE SENSE (10)", alloc); err != nil {
		return scsi.Mode{}, err
	}
	return scsi.ParseMode10(data)
}

// tgtMaxTransfer is the largest transfer that tgt takes over iSER. It closes the connection at a larger one and does
// not say so in page B0.
const tgtMaxTransfer = 512 << 10

// quirks mends what targets are known not to say.
func quirks(u *LogicalUnit) {
	if u.Vendor == "IET" && (u.MaxTransfer == 0 || u.MaxTransfer > tgtMaxTransfer) {
		u.MaxTransfer = tgtMaxTransfer
	}
}

// ReportLUNs lists the units of n's target in its own order, driving n on this goroutine. buf is as for Probe.
func ReportLUNs(ctx context.Context, n *Nexus, buf Buffer) ([]scsi.LUN, error) {
	p := newProber(ctx, driven{n}, scsi.LUN{}, buf)
	room := len(p.buf.Mem)
	scsi.ReportLUNs(&p.cmd.CDB, uint32(room))
	data, err := p.run("REPORT LUNS", room)
	if err != nil {
		return nil, p.fail("list units of", err)
	}
	list, need, err := scsi.ParseReportLUNs(data)
	if err == nil && need > room {
		err = fmt.Errorf("list of %d bytes, there is room for %d", need, room)
	}
	if err != nil {
		return nil, p.fail("list units of", err)
	}
	return list, nil
}

// ReportPortGroups reads the unit's target port groups and their access states (ALUA), driving n on this goroutine.
// buf is as for Probe.
func ReportPortGroups(ctx context.Context, n *Nexus, lun scsi.LUN, buf Buffer) ([]scsi.PortGroup, error) {
	p := newProber(ctx, driven{n}, lun, buf)
	room := len(p.buf.Mem)
	scsi.ReportTargetPortGroups(&p.cmd.CDB, uint32(room))
	data, err := p.run("REPORT TARGET PORT GROUPS", room)
	if err != nil {
		return nil, p.fail("read port groups", err)
	}
	groups, err := scsi.ParsePortGroups(data)
	if err != nil {
		return nil, p.fail("read port groups", err)
	}
	return groups, nil
}
