package iser

import (
	"slices"
	"testing"
)

func TestNoTwoSlotsShareAByteAndAllLieInTheRegion(t *testing.T) {
	for _, o := range []Options{{}, {MaxCommands: 1}, {MaxCommands: 500}, {Discovery: true}} {
		l := newLayout(o)
		type slot struct{ from, to int }
		var slots []slot
		for i := range l.recvs {
			slots = append(slots, slot{l.recvOff(i), l.recvOff(i) + recvLen})
		}
		for i := range l.sends() {
			size := HeadersLen + maxData
			if i < l.commands {
				size = HeadersLen
			}
			slots = append(slots, slot{l.sendOff(i), l.sendOff(i) + size})
		}
		slices.SortFunc(slots, func(a, b slot) int { return a.from - b.from })
		end := 0
		for _, s := range slots {
			if s.from < end || s.to > l.size() {
				t.Fatalf("%+v: slot %+v begins before %d or ends behind %d", o, s, end, l.size())
			}
			end = s.to
		}
	}
}
