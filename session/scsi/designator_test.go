package scsi

import "testing"

// lioDesignators is a page body in the form LIO gives it, without the vendor part.
const lioDesignators = `
	01 03 00 10  60 01 40 51 23 45 67 89 ab cd ef 01 23 45 67 89
	02 01 00 0c  4c 49 4f 2d 4f 52 47 20 64 69 73 6b
	51 94 00 04  00 00 00 02
	51 95 00 04  00 00 00 03
	53 98 00 08  69 71 6e 2e 61 2c 74 00`

func TestParseDeviceIDReadsEveryDesignator(t *testing.T) {
	list, err := ParseDeviceID(vpdPage(VPDDeviceID, unhex(t, lioDesignators)...))
	if err != nil || len(list) != 5 {
		t.Fatalf("%d designators, %v", len(list), err)
	}
	if d := list[4]; d.Association != AssocPort || d.Type != DesignatorSCSIName || d.CodeSet != CodeUTF8 || d.String() != "iqn.a,t" {
		t.Errorf("port name is %+v, %q", d, d)
	}
	group, port, ok := PortGroupOf(list)
	if group != 3 || port != 2 || !ok {
		t.Errorf("port is %d in group %d, %v", port, group, ok)
	}
	lu, ok := LUDesignator(list)
	if !ok || lu.WWN() != "0x6001405123456789abcdef0123456789" || lu.String() != "naa.6001405123456789abcdef0123456789" {
		t.Errorf("unit is %q, %q, %v", lu.WWN(), lu, ok)
	}
}

func TestLUDesignatorPrefersTheMoreGlobalName(t *testing.T) {
	lu := func(kind DesignatorType, set CodeSet, id string) Designator {
		return Designator{Type: kind, CodeSet: set, ID: []byte(id)}
	}
	ranked := []Designator{
		lu(DesignatorNAA, CodeBinary, "\x60\x01\x40\x50\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02"),
		lu(DesignatorNAA, CodeBinary, "\x50\x01\x40\x50\x00\x00\x00\x01"),
		lu(DesignatorNAA, CodeBinary, "\x30\x01\x40\x50\x00\x00\x00\x01"),
		lu(DesignatorEUI64, CodeBinary, "\x00\x01\x02\x03\x04\x05\x06\x07"),
		lu(DesignatorSCSIName, CodeUTF8, "iqn.2026-01.test:disk"),
		lu(DesignatorT10, CodeASCII, "VENDOR  disk 1"),
	}
	texts := []string{
		"naa.60014050000000010000000000000002", "naa.5001405000000001", "naa.3001405000000001",
		"eui.0001020304050607", "iqn.2026-01.test:disk", "t10.VENDOR_disk_1",
	}
	for i := range ranked {
		got, ok := LUDesignator(reversed(ranked[i:]))
		if !ok || !got.Equal(ranked[i]) || got.String() != texts[i] {
			t.Errorf("picked %q, %v, want %q", got, ok, texts[i])
		}
	}
}

func reversed(in []Designator) []Designator {
	out := make([]Designator, 0, len(in))
	for i := range in {
		out = append(out, in[len(in)-1-i])
	}
	return out
}

func TestLUDesignatorIgnoresNamesOfPortsAndEmptyOnes(t *testing.T) {
	list := []Designator{
		{Association: AssocPort, Type: DesignatorNAA, ID: []byte{0x60, 1}},
		{Association: AssocTarget, Type: DesignatorSCSIName, ID: []byte("iqn.a")},
		{Association: AssocLU, Type: DesignatorNAA},
		{Association: AssocLU, Type: DesignatorVendor, ID: []byte("x")},
	}
	if d, ok := LUDesignator(list); ok {
		t.Errorf("picked %+v", d)
	}
	if w := list[1].WWN(); w != "" {
		t.Errorf("an iqn has the wwn %q", w)
	}
}

func TestDesignatorsDifferInAnyPart(t *testing.T) {
	d := Designator{Type: DesignatorNAA, CodeSet: CodeBinary, ID: []byte{1, 2}}
	others := []Designator{
		{Type: DesignatorEUI64, CodeSet: CodeBinary, ID: []byte{1, 2}},
		{Type: DesignatorNAA, CodeSet: CodeASCII, ID: []byte{1, 2}},
		{Type: DesignatorNAA, CodeSet: CodeBinary, ID: []byte{1, 3}},
		{Type: DesignatorNAA, CodeSet: CodeBinary, ID: []byte{1}},
		{Association: AssocPort, Type: DesignatorNAA, CodeSet: CodeBinary, ID: []byte{1, 2}},
	}
	for _, o := range others {
		if d.Equal(o) {
			t.Errorf("%+v equals %+v", d, o)
		}
	}
	if !d.Equal(Designator{Type: DesignatorNAA, CodeSet: CodeBinary, ID: []byte{1, 2}}) {
		t.Error("a copy differs")
	}
}

func TestParseDeviceIDRefusesADesignatorThatRunsOver(t *testing.T) {
	for _, body := range []string{"01", "01 03 00", "01 03 00 08 60 01", "01 03 00 00 01"} {
		_, err := ParseDeviceID(vpdPage(VPDDeviceID, unhex(t, body)...))
		checkLie(t, err)
	}
}

func TestPortGroupOfNeedsBothDesignators(t *testing.T) {
	group := Designator{Association: AssocPort, Type: DesignatorPortGroup, ID: []byte{0, 0, 0, 1}}
	short := Designator{Association: AssocPort, Type: DesignatorRelativePort, ID: []byte{0, 1}}
	if _, _, ok := PortGroupOf([]Designator{group, short}); ok {
		t.Error("a designator of two bytes was read")
	}
}
