package scsi

import (
	"testing"

	"pgregory.net/rapid"
)

func TestLUNFormsAndNumbers(t *testing.T) {
	tests := []struct {
		name  string
		lun   LUN
		n     int
		small bool
		text  string
	}{
		{"zero", LUN{}, 0, true, "0"},
		{"peripheral", LUN{0, 7}, 7, true, "7"},
		{"flat", LUN{0x41, 0x00}, 256, true, "256"},
		{"flat where peripheral would do", LUN{0x40, 0x05}, 5, true, "5"},
		{"LIO above 255", LUN{0x01, 0x02}, 258, true, "258"},
		{"largest flat", LUN{0x7f, 0xff}, MaxSmallLUN, true, "16383"},
		{"second level", LUN{0, 1, 0, 2}, 0, false, "0x0001000200000000"},
		{"logical unit addressing", LUN{0x80, 1}, 0, false, "0x8001000000000000"},
		{"well known", LUN{0xc1, 1}, 0, false, "0xc101000000000000"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n, small := test.lun.Int()
			if n != test.n || small != test.small || test.lun.String() != test.text {
				t.Errorf("lun is %d, %v, %q", n, small, test.lun)
			}
			if back := LUNFromUint64(test.lun.Uint64()); back != test.lun {
				t.Errorf("lun became %v", back)
			}
		})
	}
}

func TestLUNFromIntRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.IntRange(0, MaxSmallLUN).Draw(t, "n")
		l, err := LUNFromInt(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := l.Int(); !ok || got != want {
			t.Fatalf("%d became %d, %v", want, got, ok)
		}
	})
}

func TestLUNFromIntPicksTheFormTargetsUse(t *testing.T) {
	for n, want := range map[int]LUN{0: {}, 255: {0, 255}, 256: {0x41, 0}, MaxSmallLUN: {0x7f, 0xff}} {
		if got, err := LUNFromInt(n); err != nil || got != want {
			t.Errorf("%d is %x, %v, want %x", n, got, err, want)
		}
	}
	for _, n := range []int{-1, MaxSmallLUN + 1} {
		if _, err := LUNFromInt(n); err == nil {
			t.Errorf("%d is accepted", n)
		}
	}
}
