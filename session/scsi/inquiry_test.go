package scsi

import "testing"

// lioInquiry is standard inquiry data in the form LIO gives it.
const lioInquiry = `
	00 00 06 02 1f 10 00 02  4c 49 4f 2d 4f 52 47 20
	64 69 73 6b 30 20 20 20  20 20 20 20 20 20 20 20
	34 2e 30 20`

func TestParseInquiryReadsADisk(t *testing.T) {
	got, err := ParseInquiry(unhex(t, lioInquiry))
	want := StandardInquiry{Version: 6, TPGS: 1, Vendor: "LIO-ORG", Product: "disk0", Revision: "4.0"}
	if err != nil || got != want {
		t.Errorf("inquiry is %+v, %v, want %+v", got, err, want)
	}
	if !got.Present() {
		t.Error("the disk counts as absent")
	}
}

func TestParseInquiryReadsTheFlags(t *testing.T) {
	b := unhex(t, lioInquiry)
	b[0], b[1], b[5] = 0x7f, 0x80, 0x31
	got, err := ParseInquiry(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.Qualifier != 3 || got.Type != TypeUnknown || !got.Removable || got.TPGS != 3 || !got.Protect || got.Present() {
		t.Errorf("inquiry is %+v", got)
	}
}

func TestParseInquiryMakesNamesPrintable(t *testing.T) {
	b := unhex(t, lioInquiry)
	copy(b[8:16], " A\x1b[2J\xff\x00")
	got, err := ParseInquiry(b)
	if err != nil || got.Vendor != "A?[2J?" {
		t.Errorf("vendor is %q, %v", got.Vendor, err)
	}
}

func TestParseInquiryRefusesLessThanTheStandardPart(t *testing.T) {
	b := unhex(t, lioInquiry)
	checkCutShort(t, b, InquiryLen, func(b []byte) error { _, err := ParseInquiry(b); return err })
	b[4] = InquiryLen - 6
	_, err := ParseInquiry(b)
	checkLie(t, err)
}

func FuzzParseInquiry(f *testing.F) {
	f.Add(unhex(f, lioInquiry))
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := ParseInquiry(b)
		if err != nil {
			return
		}
		for _, text := range []string{i.Vendor, i.Product, i.Revision} {
			for _, r := range text {
				if r < ' ' || r > '~' {
					t.Fatalf("%q is not printable", text)
				}
			}
		}
	})
}
