package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// reorder puts a command's flags before its arguments, where the flag parser looks for them: the program's flags, the
// command, the command's flags, "--", arguments. "--" ends the flags. A flag or a command that does not exist is
// refused with the nearest one that does.
func reorder(app *cli.App, args []string) ([]string, error) {
	if len(args) < 2 {
		return args, nil
	}
	r := reordering{app: app}
	for rest := args[1:]; len(rest) > 0; {
		var err error
		if rest, err = r.take(rest); err != nil {
			return nil, err
		}
	}
	return r.result(args[0]), nil
}

type reordering struct {
	app             *cli.App
	command         *cli.Command
	globals, locals []string
	args            []string
}

func (r *reordering) result(program string) []string {
	out := append([]string{program}, r.globals...)
	if r.command == nil {
		return append(append(out, r.locals...), r.args...)
	}
	out = append(append(out, r.command.Name), r.locals...)
	return append(append(out, "--"), r.args...)
}

// take handles the first of words and returns what is left.
func (r *reordering) take(words []string) ([]string, error) {
	word := words[0]
	switch {
	case word == "--" && r.command != nil:
		r.args = append(r.args, words[1:]...)
		return nil, nil
	case len(word) > 1 && word[0] == '-' && word != "--":
		return r.takeFlag(words)
	case r.command == nil:
		return words[1:], r.takeCommand(word)
	}
	r.args = append(r.args, word)
	return words[1:], nil
}

func (r *reordering) takeCommand(name string) error {
	r.command = r.app.Command(name)
	if r.command == nil {
		return badInput("unknown command %q; did you mean %q?", name, nearest(name, r.commandNames()))
	}
	return nil
}

func (r *reordering) commandNames() []string {
	var names []string
	for _, c := range r.app.Commands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return names
}

func (r *reordering) takeFlag(words []string) ([]string, error) {
	name, _, hasValue := strings.Cut(strings.TrimPrefix(words[0][1:], "-"), "=")
	flag, list := r.find(name)
	if list == nil {
		return nil, r.unknown(words[0], name)
	}
	n := 1
	if f, ok := flag.(cli.DocGenerationFlag); ok && f.TakesValue() && !hasValue {
		n = 2
	}
	if n > len(words) {
		return nil, badInput("%s needs a value", words[0])
	}
	*list = append(*list, words[:n]...)
	return words[n:], nil
}

// find looks a flag up and says where it belongs; nowhere if it does not exist. Help has no flag.
func (r *reordering) find(name string) (cli.Flag, *[]string) {
	if r.command != nil {
		if f := flagNamed(r.command.Flags, name); f != nil {
			return f, &r.locals
		}
	}
	if f := flagNamed(r.app.Flags, name); f != nil {
		return f, &r.globals
	}
	if name == "help" || name == "h" {
		return nil, &r.locals
	}
	return nil, nil
}

func flagNamed(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func (r *reordering) unknown(word, name string) error {
	names := flagNames(r.app.Flags)
	if r.command == nil {
		return badInput("unknown option %s; did you mean %s? The options of a command go after its name", word,
			nearest(name, names))
	}
	names = append(flagNames(r.command.Flags), names...)
	return badInput("unknown option %s of iserblk %s; did you mean %s?", word, r.command.Name, nearest(name, names))
}

func flagNames(flags []cli.Flag) []string {
	var names []string
	for _, f := range flags {
		names = append(names, "--"+f.Names()[0])
	}
	return names
}

// nearest is the candidate that takes the fewest edits to come to.
func nearest(word string, candidates []string) string {
	best, distance := "", -1
	for _, c := range candidates {
		if d := edits(word, strings.TrimPrefix(c, "--")); distance < 0 || d < distance {
			best, distance = c, d
		}
	}
	return best
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = min(diagonal, row[j], row[j+1]) + 1
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
