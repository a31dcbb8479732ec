package scsi

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const twoRuns = `
	00 00 00 24 00 00 00 00
	00 00 00 00 00 00 00 10  00 00 00 08 00 00 00 00
	00 00 00 00 00 00 00 18  00 00 01 00 01 00 00 00`

func TestParseLBAStatusReadsTheRuns(t *testing.T) {
	got, err := ParseLBAStatus(unhex(t, twoRuns))
	want := []LBAStatus{
		{Extent: Extent{LBA: 16, Blocks: 8}, Status: LBAMapped},
		{Extent: Extent{LBA: 24, Blocks: 256}, Status: LBADeallocated},
	}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
}

func TestParseLBAStatusReturnsWholeRunsOfAListCutShort(t *testing.T) {
	got, err := ParseLBAStatus(unhex(t, twoRuns)[:30])
	if err != nil || len(got) != 1 {
		t.Errorf("%d runs, %v", len(got), err)
	}
	for _, in := range []string{"", "00 00 00 04 00 00 00", "00 00 00 03 00 00 00 00"} {
		_, err := ParseLBAStatus(unhex(t, in))
		checkLie(t, err)
	}
}

func FuzzParseLBAStatus(f *testing.F) {
	f.Add(unhex(f, twoRuns))
	f.Fuzz(func(t *testing.T, b []byte) {
		runs, err := ParseLBAStatus(b)
		if err == nil && lbaStatusHeaderLen+len(runs)*lbaStatusLen > len(b) {
			t.Fatalf("%d runs out of %d bytes", len(runs), len(b))
		}
	})
}
