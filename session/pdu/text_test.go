package pdu

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParseTextKeepsOrderAndRepeats(t *testing.T) {
	const in = "TargetName=iqn.a\x00TargetAddress=1.2.3.4:3260,1\x00\x00TargetName=iqn.b\x00Empty=\x00Eq=a=b\x00"
	got, err := ParseText([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	want := Text{
		{"TargetName", "iqn.a"},
		{"TargetAddress", "1.2.3.4:3260,1"},
		{"TargetName", "iqn.b"},
		{"Empty", ""},
		{"Eq", "a=b"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
}

func TestParseTextRefusesWhatRFC7143Forbids(t *testing.T) {
	tests := []struct{ name, in string }{
		{"no terminating nul", "Key=value"},
		{"no equals sign", "Key\x00"},
		{"no key", "=value\x00"},
		{"key of 64 bytes", strings.Repeat("k", 64) + "=v\x00"},
		{"blank in a key", "a b=v\x00"},
		{"control character in a key", "a\nb=v\x00"},
		{"byte above ascii in a key", "k\xc3\xa9=v\x00"},
		{"value of 8193 bytes", "k=" + strings.Repeat("v", 8193) + "\x00"},
		{"more pairs than anyone needs", strings.Repeat("k=v\x00", MaxTextPairs+1)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseText([]byte(test.in))
			checkError(t, err, "key=value")
			if len(err.Error()) > 256 {
				t.Errorf("message has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestParseTextTakesTheLargestKeyAndValue(t *testing.T) {
	key, value := strings.Repeat("k", MaxKeyLen), strings.Repeat("v", MaxValueLen)
	text, err := ParseText(AppendKey(nil, key, value))
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := text.Get(key); !ok || got != value {
		t.Error("the value was changed")
	}
}

func TestGetReturnsTheFirstOfSeveralValues(t *testing.T) {
	text := Text{{"A", "1"}, {"B", "2"}, {"A", "3"}}
	if v, ok := text.Get("A"); !ok || v != "1" {
		t.Errorf("A is %q, %v", v, ok)
	}
	if v, ok := text.Get("C"); ok || v != "" {
		t.Errorf("C is %q, %v", v, ok)
	}
}

func TestAllYieldsPairsUntilTheCallerStops(t *testing.T) {
	text := Text{{"A", "1"}, {"B", "2"}, {"C", "3"}}
	var seen []string
	for k, v := range text.All() {
		seen = append(seen, k+v)
		if k == "B" {
			break
		}
	}
	if diff := cmp.Diff([]string{"A1", "B2"}, seen); diff != "" {
		t.Errorf("pairs (-want +got):\n%s", diff)
	}
}

func TestCheckPairStopsAValueFromStartingAnotherKey(t *testing.T) {
	if err := CheckPair("InitiatorName", "iqn.2026-01.test:host"); err != nil {
		t.Error(err)
	}
	bad := []Pair{
		{"K", "v\x00AuthMethod=None"},
		{"K=", "v"},
		{"", "v"},
		{"K\x00", "v"},
		{strings.Repeat("k", MaxKeyLen+1), "v"},
		{"K", strings.Repeat("v", MaxValueLen+1)},
	}
	for _, p := range bad {
		checkError(t, CheckPair(p.Key, p.Value), "key=value")
	}
}

func TestTextRoundTrips(t *testing.T) {
	pair := rapid.Custom(func(t *rapid.T) Pair {
		return Pair{
			Key:   rapid.StringMatching(`[A-Z][a-zA-Z0-9.+@_#-]{0,62}`).Draw(t, "key"),
			Value: rapid.StringMatching(`[^\x00]{0,100}`).Draw(t, "value"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		want := Text(rapid.SliceOfN(pair, 0, 20).Draw(t, "pairs"))
		got, err := ParseText(want.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if len(want) == 0 {
			want = nil
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("text (-want +got):\n%s", diff)
		}
	})
}

func TestAppendKeyAllocatesNothingWithRoomAhead(t *testing.T) {
	b := make([]byte, 0, 128)
	checkNoAllocs(t, "appending a key", func() { _ = AppendKey(b, "MaxBurstLength", "262144") })
}

func FuzzParseText(f *testing.F) {
	f.Add(AppendKey(nil, "AuthMethod", "CHAP"))
	f.Add(Text{{"TargetName", "iqn.a"}, {"TargetAddress", "[fe80::1]:3260,1"}}.Append(nil))
	f.Add([]byte("\x00\x00k=\x00=\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		text, err := ParseText(b)
		if err != nil {
			return
		}
		for _, p := range text {
			if err := CheckPair(p.Key, p.Value); err != nil {
				t.Fatalf("parsed a pair that may not be sent: %v", err)
			}
		}
		out := text.Append(nil)
		if len(out) > len(b) {
			t.Fatalf("%d bytes became %d", len(b), len(out))
		}
		again, err := ParseText(out)
		if err != nil || !bytes.Equal(out, again.Append(nil)) {
			t.Fatalf("text changed: %v", err)
		}
	})
}
