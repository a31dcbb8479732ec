package scsi

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const threeLUNs = `
	00 00 00 18 00 00 00 00
	00 00 00 00 00 00 00 00  00 05 00 00 00 00 00 00  41 00 00 00 00 00 00 00`

func TestParseReportLUNsKeepsTheWireForm(t *testing.T) {
	got, need, err := ParseReportLUNs(unhex(t, threeLUNs))
	if err != nil || need != 32 {
		t.Fatalf("need %d bytes, %v", need, err)
	}
	if diff := cmp.Diff([]LUN{{}, {0, 5}, {0x41, 0}}, got); diff != "" {
		t.Errorf("luns (-want +got):\n%s", diff)
	}
}

func TestParseReportLUNsTellsHowMuchAListCutShortNeeds(t *testing.T) {
	got, need, err := ParseReportLUNs(unhex(t, threeLUNs)[:20])
	if err != nil || need != 32 || len(got) != 1 {
		t.Errorf("%d luns, need %d bytes, %v", len(got), need, err)
	}
}

func TestParseReportLUNsIgnoresBytesBehindTheList(t *testing.T) {
	b := unhex(t, threeLUNs)
	b[3] = 8
	got, need, err := ParseReportLUNs(b)
	if err != nil || need != 16 || len(got) != 1 {
		t.Errorf("%d luns, need %d bytes, %v", len(got), need, err)
	}
}

func TestParseReportLUNsRefusesAListItCannotHold(t *testing.T) {
	for _, in := range []string{"", "00 00 00 00 00 00 00", "00 00 00 04 00 00 00 00", "ff ff ff f8 00 00 00 00"} {
		_, _, err := ParseReportLUNs(unhex(t, in))
		checkLie(t, err)
	}
}

func FuzzParseReportLUNs(f *testing.F) {
	f.Add(unhex(f, threeLUNs))
	f.Fuzz(func(t *testing.T, b []byte) {
		luns, need, err := ParseReportLUNs(b)
		if err != nil {
			return
		}
		if need <= len(b) && lunListHeaderLen+len(luns)*lunLen != need {
			t.Fatalf("%d luns out of %d bytes", len(luns), need)
		}
		for _, l := range luns {
			_ = l.String()
		}
	})
}
