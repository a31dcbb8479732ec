// Softrping speaks the protocol of rping, rdma-core's own test program, over the softroce provider: as its server or as
// its client, so that either end of it can be tried against another implementation.
//
//	softrping -s ADDRESS:PORT [-C COUNT] [-S SIZE]      rping -c -a ADDRESS -p PORT
//	softrping -c ADDRESS:PORT [-C COUNT] [-S SIZE]      rping -s -a ADDRESS -p PORT
//
// A round: the client tells where its source is and the server reads it; the client tells where its sink is, and the
// server writes there what it has read. Each step is answered by an empty note.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"time"
)

func main() {
	server := flag.String("s", "", "serve at `ADDRESS:PORT`")
	client := flag.String("c", "", "connect to `ADDRESS:PORT`")
	rounds := flag.Int("C", 10, "`COUNT` of rounds")
	size := flag.Int("S", 64, "`SIZE` of the data in bytes")
	limit := flag.Duration("t", 30*time.Second, "give up after `TIME`")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), *limit)
	defer cancel()
	var err error
	switch {
	case *server != "":
		err = serve(ctx, netip.MustParseAddrPort(*server))
	case *client != "":
		err = ping(ctx, netip.MustParseAddrPort(*client), *rounds, *size)
	default:
		flag.Usage()
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "softrping:", err)
		os.Exit(1)
	}
}
