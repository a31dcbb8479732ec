package scsi

import (
	"testing"

	"pgregory.net/rapid"
)

func TestParseSenseReadsBothFormats(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want Sense
	}{
		{
			"fixed, current",
			"70 00 06 00 00 00 00 0a 00 00 00 00 29 07 00 00 00 00",
			Sense{Key: KeyUnitAttention, ASC: 0x29, ASCQ: 0x07},
		},
		{
			"fixed with information",
			"f0 00 03 00 00 12 34 0a 00 00 00 00 11 00 00 00 00 00",
			Sense{Key: KeyMediumError, ASC: 0x11, Info: 0x1234, InfoValid: true},
		},
		{
			"fixed, deferred, with filemark bits around the key",
			"71 00 e3 00 00 00 00 0a 00 00 00 00 0c 00 00 00 00 00",
			Sense{Deferred: true, Key: KeyMediumError, ASC: 0x0c},
		},
		{
			"fixed without room for the codes",
			"70 00 05 00 00 00 00 00",
			Sense{Key: KeyIllegalRequest},
		},
		{
			"fixed whose length ends before the codes",
			"70 00 05 00 00 00 00 04 00 00 00 00 24 01",
			Sense{Key: KeyIllegalRequest},
		},
		{
			"fixed cut short although it claims more",
			"70 00 05 00 00 00 00 f4 00 00 00 00 24",
			Sense{Key: KeyIllegalRequest, ASC: 0x24},
		},
		{
			"descriptor without descriptors",
			"72 05 20 00 00 00 00 00",
			Sense{Key: KeyIllegalRequest, ASC: 0x20},
		},
		{
			"descriptor, deferred",
			"73 03 0c 02 00 00 00 00",
			Sense{Deferred: true, Key: KeyMediumError, ASC: 0x0c, ASCQ: 0x02},
		},
		{
			"descriptor with information behind another descriptor",
			"72 03 11 00 00 00 00 14  02 06 00 00 80 00 00 00  00 0a 80 00 01 02 03 04 05 06 07 08",
			Sense{Key: KeyMediumError, ASC: 0x11, Info: 0x0102030405060708, InfoValid: true},
		},
		{
			"information that is not valid",
			"72 03 11 00 00 00 00 0c  00 0a 00 00 01 02 03 04 05 06 07 08",
			Sense{Key: KeyMediumError, ASC: 0x11},
		},
		{
			"information descriptor too short to hold any",
			"72 03 11 00 00 00 00 04  00 02 80 00",
			Sense{Key: KeyMediumError, ASC: 0x11},
		},
		{
			"information descriptor cut off",
			"72 03 11 00 00 00 00 0c  00 0a 80 00 01 02 03",
			Sense{Key: KeyMediumError, ASC: 0x11},
		},
		{
			"descriptor that runs past the end",
			"72 03 11 00 00 00 00 04  02 ff 80 00",
			Sense{Key: KeyMediumError, ASC: 0x11},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseSense(unhex(t, test.in))
			if err != nil || got != test.want {
				t.Errorf("sense is %+v, %v, want %+v", got, err, test.want)
			}
		})
	}
}

func TestParseSenseRefusesWhatIsNoSense(t *testing.T) {
	for _, in := range []string{"", "70", "70 00 05 00 00 00 00", "00 00 05 00 00 00 00 00", "7f 00 05 00 00 00 00 00"} {
		_, err := ParseSense(unhex(t, in))
		checkLie(t, err)
	}
}

func drawSense(t *rapid.T) Sense {
	s := rapid.Make[Sense]().Draw(t, "sense")
	s.Key &= senseKeyMask
	if !s.InfoValid {
		s.Info = 0
	}
	return s
}

func TestSenseRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawSense(t)
		if got, err := ParseSense(AppendDescriptorSense(nil, want)); err != nil || got != want {
			t.Fatalf("descriptor: %+v became %+v, %v", want, got, err)
		}
		want.Info &= 0xffffffff
		if got, err := ParseSense(AppendFixedSense(nil, want)); err != nil || got != want {
			t.Fatalf("fixed: %+v became %+v, %v", want, got, err)
		}
	})
}

func TestSensePrintsKeyCodesMeaningAndPlace(t *testing.T) {
	tests := map[string]Sense{
		"UNIT ATTENTION 2a/09 (capacity data has changed)":               {Key: KeyUnitAttention, ASC: 0x2a, ASCQ: 0x09},
		"MEDIUM ERROR 11/00 (unrecovered read error) at lba 77":          {Key: KeyMediumError, ASC: 0x11, Info: 77, InfoValid: true},
		"deferred MEDIUM ERROR 0c/00 (write error)":                      {Deferred: true, Key: KeyMediumError, ASC: 0x0c},
		"ILLEGAL REQUEST 24/7f (invalid field in cdb)":                   {Key: KeyIllegalRequest, ASC: 0x24, ASCQ: 0x7f},
		"VENDOR SPECIFIC 99/88":                                          {Key: KeyVendor, ASC: 0x99, ASCQ: 0x88},
		"NOT READY 04/0b (not accessible, target port in standby state)": {Key: KeyNotReady, ASC: 0x04, ASCQ: 0x0b},
	}
	for want, s := range tests {
		if got := s.String(); got != want {
			t.Errorf("sense prints as %q, want %q", got, want)
		}
	}
}

func TestParsingSenseAllocatesNothing(t *testing.T) {
	s := Sense{Key: KeyUnitAttention, ASC: 0x29, Info: 5, InfoValid: true}
	fixed, desc := AppendFixedSense(nil, s), AppendDescriptorSense(nil, s)
	var action Action
	checkNoAllocs(t, "sense parsing", func() {
		for _, b := range [][]byte{fixed, desc} {
			got, err := ParseSense(b)
			if err != nil {
				panic(err)
			}
			action = Classify(StatusCheckCondition, got)
		}
	})
	if action != ActionRetry {
		t.Errorf("action is %v", action)
	}
}

func FuzzParseSense(f *testing.F) {
	s := Sense{Key: KeyMediumError, ASC: 0x11, Info: 5, InfoValid: true}
	f.Add(AppendFixedSense(nil, s))
	f.Add(AppendDescriptorSense(nil, s))
	f.Add([]byte{0x72, 3, 0x11, 0, 0, 0, 0, 4, 2, 0xff, 0x80, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSense(b)
		if err != nil {
			return
		}
		again, err := ParseSense(AppendDescriptorSense(nil, s))
		if err != nil || again != s {
			t.Fatalf("%+v became %+v, %v", s, again, err)
		}
		_ = s.String()
		_ = Errno(StatusCheckCondition, s)
	})
}
