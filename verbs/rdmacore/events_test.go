package rdmacore

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"iserblk/verbs"
)

func kinds(q *eventQueue) []verbs.EventKind {
	var out []verbs.EventKind
	for _, ev := range q.drain() {
		out = append(out, ev.Kind)
	}
	return out
}

func TestEventsArriveInOrder(t *testing.T) {
	q := newEventQueue()
	want := []verbs.EventKind{verbs.EventPortDown, verbs.EventPortUp, verbs.EventDisconnected}
	for _, k := range want {
		q.post(verbs.Event{Kind: k})
	}
	if diff := cmp.Diff(want, kinds(q)); diff != "" {
		t.Error(diff)
	}
}

func TestASlowReaderStillLearnsTheNewestOfEveryKind(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := newEventQueue()
		kind := rapid.Custom(func(t *rapid.T) verbs.EventKind {
			return verbs.EventKind(rapid.IntRange(int(verbs.EventDisconnected), int(verbs.EventQPError)).Draw(t, "kind"))
		})
		newest := make(map[verbs.EventKind]verbs.EventKind)
		for _, k := range rapid.SliceOfN(kind, 0, 200).Draw(t, "events") {
			q.post(verbs.Event{Kind: k})
			newest[slot(k)] = k
		}
		got := make(map[verbs.EventKind]verbs.EventKind)
		for _, k := range kinds(q) {
			got[slot(k)] = k
		}
		if diff := cmp.Diff(newest, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestAClosedQueueTakesNoMoreEvents(t *testing.T) {
	q := newEventQueue()
	q.close()
	q.close()
	q.post(verbs.Event{Kind: verbs.EventPortDown})
	if _, open := <-q.ch; open {
		t.Error("an event after close")
	}
}
