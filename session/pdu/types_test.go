package pdu

import (
	"testing"

	"pgregory.net/rapid"
)

func TestSerialNumbersCompareAcrossTheWrap(t *testing.T) {
	tests := []struct {
		name string
		a, b uint32
		less bool
	}{
		{"equal", 5, 5, false},
		{"next", 5, 6, true},
		{"previous", 6, 5, false},
		{"across the wrap", 0xffffffff, 0, true},
		{"back across the wrap", 0, 0xffffffff, false},
		{"just below half the space", 0, 0x7fffffff, true},
		{"exactly half has no order", 0, 0x80000000, false},
		{"exactly half has no order either way", 0x80000000, 0, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := CmdSN(test.a).Less(CmdSN(test.b)); got != test.less {
				t.Errorf("cmdsn %#x < %#x: %v, want %v", test.a, test.b, got, test.less)
			}
			if got := StatSN(test.a).Less(StatSN(test.b)); got != test.less {
				t.Errorf("statsn %#x < %#x: %v, want %v", test.a, test.b, got, test.less)
			}
		})
	}
}

func TestAddMovesASerialNumberForward(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint32().Draw(t, "n")
		d := rapid.Uint32Range(1, 1<<31-1).Draw(t, "d")
		c, s := CmdSN(n), StatSN(n)
		if !c.Less(c.Add(d)) || c.Add(d).Less(c) || c.Add(d).Diff(c) != int32(d) || c.Diff(c.Add(d)) != -int32(d) {
			t.Fatalf("cmdsn %#x plus %#x is not that far ahead", n, d)
		}
		if !s.Less(s.Add(d)) || s.Add(d).Less(s) || s.Add(d).Diff(s) != int32(d) || s.Diff(s.Add(d)) != -int32(d) {
			t.Fatalf("statsn %#x plus %#x is not that far ahead", n, d)
		}
	})
}

func TestNewISIDIsOfTheRandomType(t *testing.T) {
	id := NewISID(0xff123456, 0x789a)
	if want := (ISID{0x80, 0x12, 0x34, 0x56, 0x78, 0x9a}); id != want {
		t.Errorf("isid is %v, want %v", id, want)
	}
	if id.String() != "80123456789a" {
		t.Errorf("isid prints as %q", id.String())
	}
}
