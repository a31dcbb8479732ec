package main

import (
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

func TestTheTimeWithoutAPathIsWhatWasSaidAlsoNoneAndForEver(t *testing.T) {
	for said, want := range map[string]time.Duration{
		"": time.Minute, "0": 0, "0s": 0, "5s": 5 * time.Second, "forever": -1, "-1": -1, "-1s": -1, "-30s": -1,
	} {
		p := &program{}
		app := p.app()
		var got time.Duration
		app.Command("attach").Action = func(c *cli.Context) error {
			got = c.Generic(flagNoPathTimeout).(*patience).Duration
			return nil
		}
		args := []string{"iserblk", "attach"}
		if said != "" {
			args = append(args, "--no-path-timeout", said)
		}
		line, err := reorder(app, append(args, "iser://10.0.0.1/iqn.2026-01.example:disk"))
		if err != nil {
			t.Fatal(err)
		}
		if err := app.Run(line); err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", said, got, err, want)
		}
	}
}
