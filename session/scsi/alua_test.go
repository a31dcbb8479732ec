package scsi

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const twoGroups = `
	00 00 00 1c
	80 8f 00 01 00 02 00 02  00 00 00 01 00 00 00 02
	0f 8f 00 02 00 02 00 01  00 00 00 03`

func TestParsePortGroupsReadsStatesAndPorts(t *testing.T) {
	got, err := ParsePortGroups(unhex(t, twoGroups))
	want := []PortGroup{
		{Preferred: true, State: AccessOptimized, ID: 1, Ports: []uint16{1, 2}},
		{State: AccessTransitioning, ID: 2, Ports: []uint16{3}},
	}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
}

func TestParsePortGroupsTakesAnEmptyList(t *testing.T) {
	if got, err := ParsePortGroups(make([]byte, 4)); err != nil || len(got) != 0 {
		t.Errorf("groups are %v, %v", got, err)
	}
}

func TestParsePortGroupsRefusesDataThatRunsOver(t *testing.T) {
	b := unhex(t, twoGroups)
	checkCutShort(t, b, len(b), func(b []byte) error { _, err := ParsePortGroups(b); return err })
	for _, in := range []string{
		"00 00 00 04 80 8f 00 01",
		"00 00 00 08 80 8f 00 01 00 02 00 01",
		"ff ff ff ff 80 8f 00 01 00 02 00 00",
	} {
		_, err := ParsePortGroups(unhex(t, in))
		checkLie(t, err)
	}
}

func FuzzParsePortGroups(f *testing.F) {
	f.Add(unhex(f, twoGroups))
	f.Fuzz(func(t *testing.T, b []byte) {
		groups, err := ParsePortGroups(b)
		if err != nil {
			return
		}
		size := groupListHeaderLen
		for _, g := range groups {
			size += groupHeaderLen + len(g.Ports)*groupPortLen
		}
		if size > len(b) {
			t.Fatalf("%d bytes of groups out of %d", size, len(b))
		}
	})
}
