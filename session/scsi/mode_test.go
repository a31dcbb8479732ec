package scsi

import (
	"errors"
	"testing"
)

const (
	caching6  = "17 00 90 00  88 12 04 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
	caching10 = "00 1a 00 10 00 00 00 00  08 12 05 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
)

func TestParseMode6ReadsHeaderAndCachingPage(t *testing.T) {
	got, err := ParseMode6(unhex(t, caching6))
	if want := (Mode{WriteProtect: true, DPOFUA: true, WriteCache: true}); err != nil || got != want {
		t.Errorf("mode is %+v, %v, want %+v", got, err, want)
	}
}

func TestParseMode10ReadsHeaderAndCachingPage(t *testing.T) {
	got, err := ParseMode10(unhex(t, caching10))
	if want := (Mode{DPOFUA: true, WriteCache: true, NoReadCache: true}); err != nil || got != want {
		t.Errorf("mode is %+v, %v, want %+v", got, err, want)
	}
}

func TestParseModeFindsThePageBehindDescriptorsAndOtherPages(t *testing.T) {
	got, err := ParseMode6(unhex(t, `
		1a 00 00 08  00 00 00 00 00 00 02 00
		0a 02 ff ff  48 01 00 02 ff ff  08 04 04 00 00 00`))
	if want := (Mode{WriteCache: true}); err != nil || got != want {
		t.Errorf("mode is %+v, %v, want %+v", got, err, want)
	}
}

func TestParseModeWithoutTheCachingPageStillReportsTheHeader(t *testing.T) {
	got, err := ParseMode6(unhex(t, "03 00 80 00"))
	if !errors.Is(err, ErrNoCachingPage) || !got.WriteProtect {
		t.Errorf("mode is %+v, %v", got, err)
	}
	for _, in := range []string{"07 00 00 00 0a 02 ff ff", "05 00 00 00 48 01", "04 00 00 00 08"} {
		if _, err := ParseMode6(unhex(t, in)); !errors.Is(err, ErrNoCachingPage) {
			t.Errorf("%s: error is %v", in, err)
		}
	}
}

func TestParseModeRefusesContradictoryLengths(t *testing.T) {
	for _, in := range []string{
		"", "17 00 00", "02 00 00 00",
		"03 00 00 08", "05 00 00 00 08 12", "17 00 00 00 08 12",
	} {
		_, err := ParseMode6(unhex(t, in))
		checkLie(t, err)
	}
	for _, in := range []string{"", "00 06 00 00 00 00 00", "00 05 00 00 00 00 00 00", "00 06 00 00 00 00 ff ff"} {
		_, err := ParseMode10(unhex(t, in))
		checkLie(t, err)
	}
}

func FuzzParseMode(f *testing.F) {
	f.Add(unhex(f, caching6))
	f.Add(unhex(f, caching10))
	f.Add([]byte{0x1a, 0, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0x48, 1, 0, 2, 0xff, 0xff, 8, 4, 4, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = ParseMode6(b)
		_, _ = ParseMode10(b)
	})
}
