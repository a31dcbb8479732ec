package rc

import (
	"math/rand/v2"
	"testing"
	"time"

	"iserblk/verbs"
	"pgregory.net/rapid"
)

// book holds what was posted and has not completed.
type book struct {
	*end
	sends, recvs []uint64
	ended        bool
	posted       uint64
}

// check: each request completes once, in order, and after the first that fails all are flushed.
func (b *book) check(t *rapid.T) {
	for _, wc := range b.poll() {
		queue := &b.sends
		if wc.ID&1 == 1 {
			queue = &b.recvs
		}
		if len(*queue) == 0 || (*queue)[0] != wc.ID {
			t.Fatalf("%+v completes, not the first of %v", wc, *queue)
		}
		*queue = (*queue)[1:]
		switch {
		case wc.Status == verbs.StatusSuccess && b.ended:
			t.Fatalf("%+v succeeds after another has failed", wc)
		case wc.Status != verbs.StatusSuccess && wc.Status != verbs.StatusFlushed && b.ended:
			t.Fatalf("%+v fails by itself after another has", wc)
		}
		b.ended = b.ended || wc.Status != verbs.StatusSuccess
	}
}

// post issues something.
func (b *book) post(t *rapid.T, keys [2]uint32) {
	b.posted += 2
	id := b.posted
	buf := make([]byte, rapid.IntRange(0, 2000).Draw(t, "len"))
	var err error
	queue := &b.sends
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		err = b.qp.PostMessage(id, buf)
	case 1:
		err = b.qp.PostWrite(id, keys[0], 0, buf)
	case 2:
		err = b.qp.PostRead(id, keys[1], 0, buf)
	default:
		id++
		queue = &b.recvs
		err = b.qp.PostBuffer(id, make([]byte, 2500-rapid.SampledFrom([]int{0, 0, 0, 1500}).Draw(t, "less room")))
	}
	if err == nil {
		*queue = append(*queue, id)
	} else if err != ErrFull {
		t.Fatal(err)
	}
}

func TestHoweverAConnectionEndsEveryRequestCompletesOnceAndInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := newNetwork(t, func(a, b *Config) {
			for _, c := range []*Config{a, b} {
				c.AckTimeout, c.RetryCount, c.RNRRetry = 50*time.Millisecond, 1, 3
			}
		})
		n.seed, n.oneIn = rand.New(rand.NewPCG(1, rapid.Uint64().Draw(t, "seed"))), rapid.SampledFrom([]int{0, 10}).Draw(t, "one packet in")
		books := [2]*book{{end: n.ends[0]}, {end: n.ends[1]}}
		var keys [2][2]uint32 // by whose memory: for writing, for reading
		for i, b := range books {
			mem := make([]byte, 2000)
			keys[i] = [2]uint32{b.mem.Register(mem, 0, PeerWrites), b.mem.Register(mem, 0, PeerReads)}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			i := rapid.IntRange(0, 1).Draw(t, "end")
			switch rapid.IntRange(0, 30).Draw(t, "what") {
			case 0:
				books[i].qp.Abort()
			case 1:
				books[i].mem.Revoke(keys[i][rapid.IntRange(0, 1).Draw(t, "key")])
			case 2, 3, 4, 5, 6, 7, 8, 9:
				n.step()
			default:
				books[i].post(t, keys[1-i])
			}
			for _, b := range books {
				b.pump()
				b.check(t)
			}
		}
		n.settle()
		for _, b := range books {
			b.qp.Abort()
			b.check(t)
			if len(b.sends)+len(b.recvs) > 0 {
				t.Fatalf("%v and %v never completed", b.sends, b.recvs)
			}
			if mem := b.qp; mem.sq.unpolled != 0 || mem.rq.unpolled != 0 {
				t.Fatal("places are lost")
			}
		}
	})
}
