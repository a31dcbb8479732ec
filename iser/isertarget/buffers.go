package isertarget

import (
	"math/bits"
	"sync"
)

// buffers are for the data of commands: at full speed the collector would spend more time on them than the target.
var buffers sync.Pool

// takeBuffer gives n bytes of any content.
func takeBuffer(n int) []byte {
	if b, ok := buffers.Get().(*[]byte); ok && cap(*b) >= n {
		return (*b)[:n]
	}
	const least = 4096
	return make([]byte, n, max(least, 1<<bits.Len(uint(max(n-1, 0)))))
}

// giveBuffer takes back what nobody looks at any more.
func giveBuffer(b []byte) {
	if cap(b) > 0 {
		b = b[:0]
		buffers.Put(&b)
	}
}
