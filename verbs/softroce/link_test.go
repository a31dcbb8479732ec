package softroce

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iserblk/verbs"
)

// linkMessage is what rtnetlink says of one network device.
func linkMessage(kind uint16, index int32, flags uint32) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint32(b[unix.SizeofNlMsghdr+4:], uint32(index))
	binary.NativeEndian.PutUint32(b[unix.SizeofNlMsghdr+8:], flags)
	return b
}

func TestLinkMessagesAreUnderstood(t *testing.T) {
	type change struct {
		index int
		state linkState
	}
	up := uint32(unix.IFF_UP | unix.IFF_LOWER_UP)
	b := slices.Concat(
		linkMessage(unix.RTM_NEWLINK, 3, up), linkMessage(unix.RTM_NEWLINK, 3, unix.IFF_UP),
		linkMessage(unix.RTM_NEWADDR, 3, up), linkMessage(unix.RTM_DELLINK, 4, up),
		linkMessage(unix.RTM_NEWLINK, 5, unix.IFF_LOWER_UP),
	)
	var got []change
	parseLinks(b, func(i int, s linkState) { got = append(got, change{i, s}) })
	want := []change{{3, linkUp}, {3, linkDown}, {4, linkGone}, {5, linkDown}}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	for n := range len(b) { // what is cut off is left out
		parseLinks(b[:n], func(int, linkState) {})
	}
}

func TestAConnectionHearsOfItsLinkOnce(t *testing.T) {
	v := newVictim(t, netip.MustParseAddr("127.0.0.36"))
	p, index := v.end.provider, v.end.route.index
	for _, s := range []linkState{linkUp, linkDown, linkDown, linkUp, linkUp, linkGone} {
		p.linkChanged(index, s)
		p.linkChanged(index+1, linkDown) // somebody else's
	}
	for _, want := range []verbs.EventKind{verbs.EventPortDown, verbs.EventPortUp, verbs.EventDeviceGone} {
		if ev := <-v.Events(); ev.Kind != want {
			t.Errorf("%v, not %v", ev.Kind, want)
		}
	}
	select {
	case ev := <-v.Events():
		t.Errorf("%v", ev.Kind)
	case <-time.After(10 * time.Millisecond):
	}
}

func TestTheKernelTellsOfLinks(t *testing.T) {
	w, err := watchLinks(func(int, linkState) {})
	if err != nil {
		t.Fatal(err)
	}
	w.close() // ends although nothing comes
}
