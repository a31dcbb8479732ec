package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"iserblk/cmd/iserblk/worker"
	"iserblk/session/chap"
)

const (
	defaultCredentials = "/etc/iserblk/credentials"

	flagCredentials      = "credentials"
	flagChapUser         = "chap-user"
	flagChapSecret       = "chap-secret-file"
	flagChapTargetUser   = "chap-target-user"
	flagChapTargetSecret = "chap-target-secret-file"
	flagChapAlgorithms   = "chap-algorithms"

	envSecret       = "ISERBLK_CHAP_SECRET"
	envTargetSecret = "ISERBLK_CHAP_TARGET_SECRET"
)

func credentialFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: flagChapUser, Usage: "log in with CHAP as `USER`"},
		&cli.StringFlag{Name: flagChapSecret, Usage: "read the secret of USER from `FILE`"},
		&cli.StringFlag{Name: flagChapTargetUser, Usage: "have the target prove that it is `USER`"},
		&cli.StringFlag{Name: flagChapTargetSecret, Usage: "read the target's secret from `FILE`"},
		&cli.StringFlag{Name: flagChapAlgorithms, Usage: "offer the hashes of `LIST`, best first: sha3-256,sha256,sha1,md5"},
		&cli.StringFlag{Name: flagCredentials, Usage: "look the target up in `FILE`", Value: defaultCredentials},
	}
}

// credentials puts together what the flags, the environment and the credentials file say about a target, in this
// order. user is the one in the URL.
func (p *program) credentials(c *cli.Context, target, user string) (worker.Credentials, error) {
	creds, err := p.storedCredentials(c, target)
	if err != nil {
		return creds, err
	}
	if creds, err = p.givenCredentials(c, creds, user); err != nil {
		return creds, err
	}
	if list := c.String(flagChapAlgorithms); list != "" {
		creds.Algorithms = strings.Split(list, ",")
	}
	if creds.Algorithms, err = algorithmNumbers(creds.Algorithms); err != nil {
		return creds, err
	}
	return creds, checkCredentials(creds)
}

// givenCredentials lets the flags, the URL and the environment override creds.
func (p *program) givenCredentials(c *cli.Context, creds worker.Credentials, user string) (worker.Credentials, error) {
	if u := c.String(flagChapUser); u != "" {
		if user != "" && user != u {
			return creds, badInput("the URL and --%s name different users", flagChapUser)
		}
		user = u
	}
	if user != "" && user != creds.User {
		creds.User, creds.Secret = user, "" // a stored secret is that of the stored user
	}
	if u := c.String(flagChapTargetUser); u != "" && u != creds.TargetUser {
		creds.TargetUser, creds.TargetSecret = u, ""
	}
	var err error
	if creds.Secret, err = p.secret(c.String(flagChapSecret), envSecret, creds.Secret); err != nil {
		return creds, err
	}
	creds.TargetSecret, err = p.secret(c.String(flagChapTargetSecret), envTargetSecret, creds.TargetSecret)
	return creds, err
}

// secret is that of the file if there is one, else that of the environment, else stored.
func (p *program) secret(file, env string, stored worker.Secret) (worker.Secret, error) {
	if file != "" {
		text, err := readPrivate(file)
		return worker.Secret(strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")), err
	}
	if s := os.Getenv(env); s != "" {
		return worker.Secret(s), nil
	}
	return stored, nil
}

func checkCredentials(c worker.Credentials) error {
	switch {
	case c.User != "" && c.Secret == "":
		return badInput("no secret for CHAP user %s; give it with --%s, %s or in %s", c.User, flagChapSecret, envSecret,
			defaultCredentials)
	case c.User == "" && c.Secret != "":
		return badInput("a CHAP secret without a user; give it with --%s or in the URL", flagChapUser)
	case c.TargetSecret != "" && c.User == "":
		return badInput("the target can only prove itself to a user; give one with --%s", flagChapUser)
	case c.TargetUser != "" && c.TargetSecret == "":
		return badInput("no secret for the target's CHAP user; give it with --%s or %s", flagChapTargetSecret,
			envTargetSecret)
	case c.TargetSecret != "" && c.TargetUser == "":
		return badInput("a secret of the target without its user; give it with --%s", flagChapTargetUser)
	case c.TargetSecret != "" && c.TargetSecret == c.Secret:
		return badInput("the two CHAP secrets must differ (RFC 7143, 9.2.1)")
	}
	return nil
}

// algorithmNumbers takes names or numbers and gives numbers, as CHAP_A has them.
func algorithmNumbers(words []string) ([]string, error) {
	var numbers []string
	for _, w := range words {
		w = strings.ToLower(strings.TrimSpace(w))
		i := slices.IndexFunc(chap.DefaultAlgorithms(), func(a chap.Algorithm) bool {
			return w == strconv.Itoa(int(a)) || plainName(w) == plainName(a.String())
		})
		if i < 0 {
			return nil, badInput("CHAP algorithm %q: known are sha3-256, sha256, sha1 and md5", w)
		}
		numbers = append(numbers, strconv.Itoa(int(chap.DefaultAlgorithms()[i])))
	}
	return numbers, nil
}

// plainName is a name without case and dashes: "SHA-256" is also called "sha256".
func plainName(s string) string { return strings.ToLower(strings.ReplaceAll(s, "-", "")) }

// readPrivate reads a file that not everyone may read.
func readPrivate(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o007 != 0 {
		return "", badInput("%s holds secrets and every user may open it (mode %04o); chmod o-rwx %s", file,
			info.Mode().Perm(), file)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecretFile))
	return string(text), err
}

const maxSecretFile = 1 << 20

// storedCredentials looks a target up in the credentials file. Without the flag the file need not exist.
func (p *program) storedCredentials(c *cli.Context, target string) (worker.Credentials, error) {
	file := c.String(flagCredentials)
	if !c.IsSet(flagCredentials) {
		file = filepath.Join(p.root, file)
	}
	text, err := readPrivate(file)
	if errors.Is(err, fs.ErrNotExist) && !c.IsSet(flagCredentials) {
		return worker.Credentials{}, nil
	}
	if err != nil {
		return worker.Credentials{}, fmt.Errorf("credentials: %w", err)
	}
	creds, err := parseCredentials(text, target)
	if err != nil {
		return creds, badInput("%s: %w", file, err)
	}
	return creds, nil
}

// parseCredentials takes what a file of "key = value" lines says about a target: the section [TARGET] if there is
// one, else what stands before the first section or in [*].
func parseCredentials(text, target string) (worker.Credentials, error) {
	found := map[string]*worker.Credentials{"*": {}}
	section, line := "*", 0
	for s := range strings.Lines(text) {
		line++
		s = strings.TrimSpace(s)
		if s == "" || s[0] == '#' || s[0] == ';' {
			continue
		}
		if name, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(name, "]") {
			section = strings.TrimSuffix(name, "]")
			if found[section] == nil {
				found[section] = &worker.Credentials{}
			}
			continue
		}
		if err := setCredential(found[section], s); err != nil {
			return worker.Credentials{}, fmt.Errorf("line %d: %w", line, err)
		}
	}
	if creds := found[target]; creds != nil {
		return *creds, nil
	}
	return *found["*"], nil
}

// setCredential never shows the line in its error, as it may hold a secret.
func setCredential(c *worker.Credentials, line string) error {
	key, value, ok := strings.Cut(line, "=")
	if !ok {
		return errors.New("want key = value")
	}
	value = strings.TrimSpace(value)
	switch strings.TrimSpace(key) {
	case "user":
		c.User = value
	case "secret":
		c.Secret = worker.Secret(value)
	case "target-user":
		c.TargetUser = value
	case "target-secret":
		c.TargetSecret = worker.Secret(value)
	case "algorithms":
		c.Algorithms = strings.Split(value, ",")
	default:
		return errors.New("unknown key; known are user, secret, target-user, target-secret, algorithms")
	}
	return nil
}
