package cm_test

import (
	"bufio"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"iserblk/verbs/softroce/cm"
)

// captured are the messages of the connection manager among the packets that two kernel soft RoCE devices exchanged
// (wire/testdata/capture.sh).
func captured(t *testing.T) []cm.MAD {
	t.Helper()
	f, err := os.Open("../wire/testdata/rxe.hex")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []cm.MAD
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		pkt, err := hex.DecodeString(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		ip := 20
		if pkt[0]>>4 == 6 {
			ip = 40
		}
		const udp, transport, icrc, udSendOnly = 8, 20, 4, 0x64
		if bth := pkt[ip+udp:]; bth[0] == udSendOnly && len(bth) == transport+cm.MADLen+icrc {
			m, err := cm.ParseMAD(bth[transport : transport+cm.MADLen])
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, m)
		}
	}
	return all
}

func TestMessagesOfTheKernelComeBackByteForByte(t *testing.T) {
	seen := map[cm.Attr]int{}
	for _, m := range captured(t) {
		again := reencode(t, &m)
		if again != m {
			for i := range m {
				if again[i] != m[i] {
					t.Errorf("%v: byte %d of the body is 0x%02x, became 0x%02x", m.Attr(), i-24, m[i], again[i])
				}
			}
		}
		seen[m.Attr()]++
	}
	for _, a := range []cm.Attr{cm.AttrREQ, cm.AttrREP, cm.AttrRTU, cm.AttrDREQ, cm.AttrDREP} {
		if seen[a] == 0 {
			t.Errorf("no %v was captured", a)
		}
	}
}

func reencode(t *testing.T, m *cm.MAD) cm.MAD {
	t.Helper()
	switch m.Attr() {
	case cm.AttrREQ:
		r, err := cm.ParseREQ(m)
		if err != nil {
			t.Fatal(err)
		}
		ip, err := cm.ParseIPHeader(&r.Private)
		if err != nil || ip.Src.Addr() != r.Src || ip.Dst != r.Dst {
			t.Fatalf("%+v: %v", ip, err)
		}
		before := r.Private
		ip.User = append([]byte(nil), ip.User...)
		if ip.Put(&r.Private); r.Private != before {
			t.Errorf("IP header % x became % x", before, r.Private)
		}
		return r.Encode()
	case cm.AttrREP:
		r, err := cm.ParseREP(m)
		if err != nil {
			t.Fatal(err)
		}
		return r.Encode()
	case cm.AttrREJ:
		r, err := cm.ParseREJ(m)
		if err != nil {
			t.Fatal(err)
		}
		return r.Encode()
	case cm.AttrDREQ:
		r := cm.ParseDREQ(m)
		return r.Encode()
	}
	r := cm.REJ{IDs: cm.IDs{TID: m.TID(), LocalID: m.LocalID(), RemoteID: m.RemoteID()}}
	again := r.Encode()
	again[17] = byte(m.Attr()) // RTU and DREP are nothing but identifiers
	again[24+8], again[24+9] = 0, 0
	return again
}
