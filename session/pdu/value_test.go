package pdu

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseBoolTakesYesAndNoOnly(t *testing.T) {
	for _, want := range []bool{true, false} {
		if got, err := ParseBool(Bool(want)); err != nil || got != want {
			t.Errorf("%s is %v, %v", Bool(want), got, err)
		}
	}
	for _, v := range []string{"", "yes", "NO", "Yes ", "1"} {
		_, err := ParseBool(v)
		checkError(t, err, "key=value")
	}
}

func TestParseNumberTakesDecimalAndHex(t *testing.T) {
	good := map[string]uint64{
		"0": 0, "262144": 262144, "0x10": 16, "0XfF": 255, "18446744073709551615": 1<<64 - 1,
	}
	for v, want := range good {
		if got, err := ParseNumber(v); err != nil || got != want {
			t.Errorf("%s is %d, %v, want %d", v, got, err, want)
		}
	}
	for _, v := range []string{"", "-1", "+1", " 1", "1_0", "0x", "0xg", "1e3", "18446744073709551616"} {
		_, err := ParseNumber(v)
		checkError(t, err, "key=value")
	}
}

func TestParseBinaryTakesHexAndBase64(t *testing.T) {
	tests := []struct {
		name, in string
		want     []byte
	}{
		{"hex", "0x0aFf", []byte{0x0a, 0xff}},
		{"hex with a capital X", "0X01", []byte{1}},
		{"odd count of digits", "0xabc", []byte{0x0a, 0xbc}},
		{"base64", "0bAQIDBA==", []byte{1, 2, 3, 4}},
		{"base64 without padding", "0BAQIDBA", []byte{1, 2, 3, 4}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseBinary(test.in, 16)
			if err != nil || !bytes.Equal(got, test.want) {
				t.Errorf("%s is %x, %v, want %x", test.in, got, err, test.want)
			}
		})
	}
}

func TestParseBinaryRefusesOtherTextWithoutShowingIt(t *testing.T) {
	tests := []struct{ name, in string }{
		{"empty", ""},
		{"no prefix", "7365637265742d78"},
		{"no digits", "0x"},
		{"no base64", "0b"},
		{"bad digit", "0x7365637265742d7g"},
		{"bad base64", "0b7365637265742d!"},
		{"line break in base64", "0bAQ\nID"},
		{"more bytes than the limit", "0x" + strings.Repeat("73", 17)},
		{"more characters than a value may have", "0x" + strings.Repeat("73", MaxValueLen)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseBinary(test.in, 16)
			checkError(t, err, "key=value")
			if strings.Contains(err.Error(), "7365") {
				t.Errorf("message shows the value: %v", err)
			}
		})
	}
}

func TestBinaryValuesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Byte(), 1, 1024).Draw(t, "bytes")
		for _, text := range [][]byte{AppendHex(nil, want), AppendBase64(nil, want)} {
			got, err := ParseBinary(string(text), 1024)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s became %x, %v", text, got, err)
			}
		}
	})
}

func FuzzParseBinary(f *testing.F) {
	f.Add("0x0102")
	f.Add("0bAQI=")
	f.Add(string(AppendBase64(nil, make([]byte, 64))))
	f.Fuzz(func(t *testing.T, v string) {
		b, err := ParseBinary(v, 1024)
		if err != nil {
			return
		}
		again, err := ParseBinary(string(AppendHex(nil, b)), 1024)
		if err != nil || !bytes.Equal(b, again) {
			t.Fatalf("%x became %x, %v", b, again, err)
		}
	})
}

func FuzzParseNumber(f *testing.F) {
	f.Add("8192")
	f.Add("0x2000")
	f.Fuzz(func(_ *testing.T, v string) {
		_, _ = ParseNumber(v)
		_, _ = ParseBool(v)
	})
}
