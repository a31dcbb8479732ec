package iser_test

import (
	"testing"

	"iserblk/iser"
)

// Sends without a completion of their own must not keep a dead connection's buffers for ever, nor give them back early.
func TestSendsThatRaisedNoCompletionAreDrainedByTheBeacon(t *testing.T) {
	for _, received := range []int{0, 1, 3, 3 + sharedCompletion} {
		w := full(t, iser.Options{})
		w.commands(3 + sharedCompletion)
		for range received {
			w.recv()
		}
		if w.conn.Abort(); w.conn.Drained() {
			t.Errorf("%d received: drained before a flush was seen", received)
		}
		if err := w.drain(); err != nil {
			t.Error(err)
		}
		if !w.conn.Drained() {
			t.Errorf("%d of %d sends received: not drained", received, 3+sharedCompletion)
		}
	}
}

func TestSlotsComeBackHoweverManyCommandsShareACompletion(t *testing.T) {
	w := full(t, iser.Options{MaxCommands: 2})
	for range 500 {
		w.commands(1)
		w.recv()
		if err := w.drain(); err != nil {
			t.Fatal(err)
		}
	}
}
