package scsi

import (
	"bytes"
	"testing"
)

const limitsBody = `
	01 08 00 10  00 00 20 00  00 00 10 00  00 00 00 00
	00 01 00 00  00 00 00 20  00 00 00 08  80 00 00 04
	00 00 00 00 00 02 00 00
	00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00`

func TestParseBlockLimitsReadsEveryField(t *testing.T) {
	got, err := ParseBlockLimits(vpdPage(VPDBlockLimits, unhex(t, limitsBody)...))
	want := BlockLimits{
		WriteSameNonZero: true, MaxCompareAndWrite: 8, OptimalTransferGranularity: 16,
		MaxTransfer: 0x2000, OptimalTransfer: 0x1000,
		MaxUnmapLBAs: 0x10000, MaxUnmapDescriptors: 32, OptimalUnmapGranularity: 8,
		UnmapAlignment: 4, UnmapAlignmentValid: true, MaxWriteSame: 0x20000,
	}
	if err != nil || got != want {
		t.Errorf("limits are %+v, %v, want %+v", got, err, want)
	}
}

func TestParseBlockLimitsTakesTheShortPagesOfOldDevices(t *testing.T) {
	body := unhex(t, limitsBody)
	basic, err := ParseBlockLimits(vpdPage(VPDBlockLimits, body[:12]...))
	if err != nil || basic.MaxTransfer != 0x2000 || basic.MaxUnmapLBAs != 0 || basic.UnmapAlignmentValid {
		t.Errorf("sbc-2 limits are %+v, %v", basic, err)
	}
	unmap, err := ParseBlockLimits(vpdPage(VPDBlockLimits, body[:32]...))
	if err != nil || unmap.MaxUnmapDescriptors != 32 || unmap.MaxWriteSame != 0 {
		t.Errorf("early sbc-3 limits are %+v, %v", unmap, err)
	}
	_, err = ParseBlockLimits(vpdPage(VPDBlockLimits, body[:11]...))
	checkLie(t, err)
}

func TestParseBlockDeviceReadsRotationAndZones(t *testing.T) {
	got, err := ParseBlockDevice(vpdPage(VPDBlockDevice, append(unhex(t, "00 01 00 05 10"), make([]byte, 55)...)...))
	if want := (BlockDevice{RotationRate: RotationNone, Zoned: 1}); err != nil || got != want {
		t.Errorf("characteristics are %+v, %v, want %+v", got, err, want)
	}
}

func TestParseProvisioningReadsTheFlags(t *testing.T) {
	got, err := ParseProvisioning(vpdPage(VPDLogicalProvisioning, 9, 0xe4, 2, 0))
	want := Provisioning{ThresholdExponent: 9, Unmap: true, WriteSame16: true, WriteSame10: true, ReadZeroes: true, Type: 2}
	if err != nil || got != want {
		t.Errorf("provisioning is %+v, %v, want %+v", got, err, want)
	}
	got, err = ParseProvisioning(vpdPage(VPDLogicalProvisioning, 0, 0x80, 0, 0))
	if want := (Provisioning{Unmap: true}); err != nil || got != want {
		t.Errorf("provisioning is %+v, %v, want %+v", got, err, want)
	}
}

func TestParseSupportedPagesListsTheCodes(t *testing.T) {
	got, err := ParseSupportedPages(vpdPage(VPDSupportedPages, 0x00, 0x80, 0x83, 0xb0))
	if err != nil || !bytes.Equal(got, []byte{0x00, 0x80, 0x83, 0xb0}) {
		t.Errorf("pages are %x, %v", got, err)
	}
}

func TestParseUnitSerialTrimsThePadding(t *testing.T) {
	got, err := ParseUnitSerial(vpdPage(VPDUnitSerial, []byte("  abc-123 \x00")...))
	if err != nil || got != "abc-123" {
		t.Errorf("serial is %q, %v", got, err)
	}
	if got, err := ParseUnitSerial(vpdPage(VPDUnitSerial)); err != nil || got != "" {
		t.Errorf("empty serial is %q, %v", got, err)
	}
}

// pageParsers are all parsers of vital product data, by page.
var pageParsers = map[uint8]func([]byte) error{
	VPDSupportedPages:      func(b []byte) error { _, err := ParseSupportedPages(b); return err },
	VPDUnitSerial:          func(b []byte) error { _, err := ParseUnitSerial(b); return err },
	VPDDeviceID:            func(b []byte) error { _, err := ParseDeviceID(b); return err },
	VPDBlockLimits:         func(b []byte) error { _, err := ParseBlockLimits(b); return err },
	VPDBlockDevice:         func(b []byte) error { _, err := ParseBlockDevice(b); return err },
	VPDLogicalProvisioning: func(b []byte) error { _, err := ParseProvisioning(b); return err },
}

func TestVPDParsersRefuseAPageCutShortOrOfAnotherKind(t *testing.T) {
	for page, parse := range pageParsers {
		b := vpdPage(page, make([]byte, 60)...)
		checkCutShort(t, b, len(b), parse)
		b[1] ^= 0x7f
		checkLie(t, parse(b))
	}
}

func TestVPDLengthTellsHowMuchToAskFor(t *testing.T) {
	if n, err := VPDLength(vpdPage(VPDDeviceID, make([]byte, 300)...)[:4]); err != nil || n != 304 {
		t.Errorf("length is %d, %v", n, err)
	}
	_, err := VPDLength(make([]byte, 3))
	checkLie(t, err)
}

func FuzzParseVPD(f *testing.F) {
	f.Add(vpdPage(VPDBlockLimits, unhex(f, limitsBody)...))
	f.Add(vpdPage(VPDDeviceID, unhex(f, lioDesignators)...))
	for page := range pageParsers {
		f.Add(vpdPage(page, make([]byte, 60)...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, parse := range pageParsers {
			_ = parse(b)
		}
		list, err := ParseDeviceID(b)
		if err != nil {
			return
		}
		if d, ok := LUDesignator(list); ok && (d.Association != AssocLU || d.String() == "" && d.Type != DesignatorSCSIName) {
			t.Fatalf("picked %+v", d)
		}
		_, _, _ = PortGroupOf(list)
	})
}
