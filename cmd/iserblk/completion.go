package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"iserblk/cmd/iserblk/state"
	"iserblk/cmd/iserblk/worker"
)

// completeVerb is what the shells call, with the words of the line up to the one that is being typed.
const completeVerb = "__complete"

// completions are the scripts that make a shell call completeVerb.
var completions = map[string]string{
	"bash": `_iserblk() {
    local IFS=$'\n'
    COMPREPLY=($(iserblk __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _iserblk iserblk
`,
	"zsh": `#compdef iserblk
_iserblk() {
    local -a found
    found=("${(@f)$(iserblk __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    compadd -- $found
}
if [ "$funcstack[1]" = _iserblk ]; then _iserblk "$@"; else compdef _iserblk iserblk; fi
`,
	"fish": `complete -c iserblk -f -a '(iserblk __complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
`,
}

func (p *program) completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a completion script for a shell",
		ArgsUsage: "bash|zsh|fish",
		Action: func(c *cli.Context) error {
			args, err := only(c, 1, 1)
			if err != nil {
				return err
			}
			script, ok := completions[args[0]]
			if !ok {
				return badInput("no completion for %q: want bash, zsh or fish", args[0])
			}
			fmt.Fprint(p.stdout, script)
			return nil
		},
	}
}

// complete prints what the last of words may become.
func (p *program) complete(words []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	app := p.app()
	before, last := words[:len(words)-1], words[len(words)-1]
	for _, candidate := range candidates(app, before, last) {
		if strings.HasPrefix(candidate, last) {
			fmt.Fprintln(p.stdout, candidate)
		}
	}
}

// flagValues are the words that a flag takes.
var flagValues = map[string][]string{
	flagOutput: {"json", "table"}, "o": {"json", "table"},
	flagFrontend:       worker.Frontends,
	flagListen:         {"unix:", "tcp:"},
	flagChapAlgorithms: {"sha3-256", "sha256", "sha1", "md5"},
}

func candidates(app *cli.App, before []string, last string) []string {
	var command *cli.Command
	for _, w := range before {
		if c := app.Command(w); c != nil && command == nil {
			command = c
		}
	}
	if len(before) > 0 {
		if values := flagValues[strings.TrimLeft(before[len(before)-1], "-")]; values != nil {
			return values
		}
	}
	switch {
	case command == nil && strings.HasPrefix(last, "-"):
		return flagNames(app.Flags)
	case command == nil:
		return (&reordering{app: app}).commandNames()
	case strings.HasPrefix(last, "-"):
		return append(flagNames(command.Flags), flagNames(app.Flags)...)
	}
	return argumentsOf(command.Name)
}

// argumentsOf are the arguments that a command can have now.
func argumentsOf(command string) []string {
	switch command {
	case "detach", "status", "paths", "recover":
		return attachedNames()
	case "completion":
		return []string{"bash", "fish", "zsh"}
	case "attach", "luns":
		return []string{"iser://"}
	}
	return nil
}

// attachedNames are the devices of all workers. The run directory can only be that of the environment here.
func attachedNames() []string {
	run := os.Getenv("ISERBLK_RUN_DIR")
	if run == "" {
		run = state.Default(os.Geteuid(), os.Getenv).Run
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	workers, _ := worker.List(ctx, state.Dirs{Run: run})
	var names []string
	for _, w := range workers {
		for _, d := range w.Devices {
			names = append(names, d.Path)
		}
	}
	return names
}
