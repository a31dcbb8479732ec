package pdu

import (
	"bytes"
	"testing"
)

func TestSenseDataReturnsWhatItsLengthSays(t *testing.T) {
	tests := []struct {
		name string
		data string
		want string
	}{
		{"no data segment", "", ""},
		{"length zero", "0000", ""},
		{"length zero and padding", "0000 0000", ""},
		{"sense alone", "0004 70000600", "70000600"},
		{"sense and three bytes of padding", "0003 700006 000000", "700006"},
		{"response data behind the sense", "0002 7000 cafebabe", "7000"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := SenseData(unhex(t, test.data))
			if err != nil || !bytes.Equal(got, unhex(t, test.want)) {
				t.Errorf("sense is %x, %v, want %s", got, err, test.want)
			}
		})
	}
}

func TestSenseDataRefusesALengthBeyondTheSegment(t *testing.T) {
	for _, data := range []string{"00", "0001", "0005 70000600", "ffff 70000600"} {
		_, err := SenseData(unhex(t, data))
		checkError(t, err, "SenseLength")
	}
}

func TestSenseDataCannotBeGrownIntoTheBytesBehindIt(t *testing.T) {
	data := unhex(t, "0002 7000 cafebabe")
	sense, err := SenseData(data)
	if err != nil {
		t.Fatal(err)
	}
	_ = append(sense, 0xff)
	if data[4] != 0xca {
		t.Error("append to the sense overwrote response data")
	}
}

func FuzzSenseData(f *testing.F) {
	f.Add([]byte{})
	f.Add(AppendSenseData(nil, []byte{0x70, 0, 6, 0, 0, 0, 0, 10}))
	f.Add(append(AppendSenseData(nil, []byte{0x72, 5, 0x20, 0}), 0, 0, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		sense, err := SenseData(data)
		if err != nil || sense == nil {
			return
		}
		again, err := SenseData(AppendSenseData(nil, sense))
		if err != nil || !bytes.Equal(sense, again) {
			t.Fatalf("%x became %x, %v", sense, again, err)
		}
	})
}
