package worker

import (
	"fmt"

	"iserblk/verbs"
)

// NewAcceptor is the passive end of a provider, for demonstrations and test beds.
func NewAcceptor(provider string) (verbs.Acceptor, error) {
	p, err := newProvider(provider)
	if err != nil {
		return nil, err
	}
	if a, ok := p.(verbs.Acceptor); ok {
		return a, nil
	}
	return nil, fmt.Errorf("RDMA provider %s: %w: it takes no connections", p.Name(), ErrUnsupported)
}
