package wire

// PSN is a packet sequence number: 24 bits, compared as serial numbers (IBTA 9.7.2).
type PSN uint32

const (
	psnBits = 24
	// PSNMask keeps the 24 bits of a sequence, message or queue pair number.
	PSNMask = 1<<psnBits - 1
)

// Add is the number n packets on.
func (p PSN) Add(n int) PSN { return PSN(uint32(p)+uint32(n)) & PSNMask }

// Sub is how many packets p is behind q, from -2^23 to 2^23-1: negative when p comes before q.
func (p PSN) Sub(q PSN) int { return int(int32(uint32(p-q)<<(32-psnBits)) >> (32 - psnBits)) }

// Less tells whether p comes before q.
func (p PSN) Less(q PSN) bool { return p.Sub(q) < 0 }
