package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"
	"pgregory.net/rapid"

	"iserblk/cmd/iserblk/state"
	"iserblk/cmd/iserblk/worker"
)

func TestURLs(t *testing.T) {
	const name = "iqn.2003-01.org.linux-iscsi:disk0"
	tests := []struct {
		url  string
		want targetURL
	}{
		{"iser://10.0.0.1/" + name, targetURL{portals: []portal{{"10.0.0.1", 3260}}, target: name}},
		{"iser://10.0.0.1/" + name + "/", targetURL{portals: []portal{{"10.0.0.1", 3260}}, target: name}},
		{"iser://h:1/" + name + "/12", targetURL{portals: []portal{{"h", 1}}, target: name, lun: 12, hasLUN: true}},
		{
			"iser://me@a,b:3261,[fe80::1%eth0]:99,[::1]/" + name + "/0",
			targetURL{
				user: "me", target: name, hasLUN: true,
				portals: []portal{{"a", 3260}, {"b", 3261}, {"fe80::1%eth0", 99}, {"::1", 3260}},
			},
		},
		{
			"iser://iqn.me%40home@a/" + name,
			targetURL{user: "iqn.me@home", portals: []portal{{"a", 3260}}, target: name},
		},
		{"iser://a/eui.02004567A425678D", targetURL{portals: []portal{{"a", 3260}}, target: "eui.02004567A425678D"}},
	}
	for _, tt := range tests {
		got, err := parseURL(tt.url)
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
		}
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(targetURL{}, portal{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.url, diff)
		}
	}
}

func TestURLsThatAreRefused(t *testing.T) {
	const name = "/iqn.2003-01.org.linux-iscsi:disk0"
	for _, url := range []string{
		"", "iser://", "iser:///", "iscsi://a" + name, "a" + name, "iser://a", "iser://a/", "iser://a/b", "iser://,a" + name,
		"iser://a:" + name, "iser://a:70000" + name, "iser://a:b:1" + name, "iser://::1" + name, "iser://[::1" + name,
		"iser://[10.0.0.1]" + name, "iser://[::1]x" + name, "iser://@a" + name, "iser://u:p@a" + name, "iser://%zz@a" + name,
		"iser://a b" + name, "iser://a" + name + "/-1", "iser://a" + name + "/0x1", "iser://a" + name + "/16384",
		"iser://a" + name + "/1/2", "iser://a/iqn.2003-01.x:..%2f..%2fetc",
	} {
		if _, err := parseURL(url); !errors.Is(err, worker.ErrInput) {
			t.Errorf("%q: %v, want bad input", url, err)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("iser://me@a,b:3261,[fe80::1%eth0]:99/iqn.2003-01.org.linux-iscsi:disk0/3")
	f.Add("iser://u:p@h/iqn.2003-01.x")
	f.Add("iser://[::1]:3260/naa.52004567BA64678D")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := parseURL(s)
		if err != nil {
			if !errors.Is(err, worker.ErrInput) {
				t.Errorf("%v is not bad input", err)
			}
			return
		}
		if state.CheckName(u.target) != nil || strings.ContainsAny(u.target, "/\x00") {
			t.Errorf("%q gives target %q", s, u.target)
		}
		if strings.Contains(u.user, ":") {
			t.Errorf("%q gives user %q", s, u.user)
		}
		for _, p := range u.portals {
			again, err := parsePortal(p.String())
			if err != nil || again != p {
				t.Errorf("portal %+v of %q prints as %q and reads as %+v, %v", p, s, p, again, err)
			}
		}
	})
}

// words are a command line in the making: flags and arguments in any order.
type words struct {
	flags [][]string
	args  []string
}

func TestFlagsMayStandAnywhere(t *testing.T) {
	app := (&program{}).app()
	flags := [][]string{
		{"--queues", "3"},
		{"--queues=4"},
		{"--read-only"},
		{"--foreground"},
		{"--source", "-1.2.3.4"},
		{"-v"},
		{"--chap-user", "--force"},
		{"--run-dir", "/x"},
		{"--verbose=true"},
		{"-depth", "9"},
	}
	rapid.Check(t, func(t *rapid.T) {
		w := words{
			rapid.SliceOf(rapid.SampledFrom(flags)).Draw(t, "flags"),
			rapid.SliceOf(rapid.StringMatching(`[a-z0-9:/.]{0,8}|-`)).Draw(t, "args"),
		}
		line := mix(t, w)
		got, err := reorder(app, append([]string{"iserblk", "attach"}, line...))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		i := slices.Index(got, "attach")
		end := len(got) - len(w.args)
		if end < 1 || !slices.Equal(got[end:], w.args) || got[end-1] != "--" {
			t.Fatalf("%q becomes %q: arguments %q are not at its end", line, got, w.args)
		}
		given := slices.Concat(w.flags...)
		kept := append(slices.Clone(got[1:i]), got[i+1:end-1]...)
		slices.Sort(given)
		slices.Sort(kept)
		if !slices.Equal(given, kept) {
			t.Fatalf("%q becomes %q: flags %q became %q", line, got, given, kept)
		}
		again, err := reorder(app, got)
		if err != nil || !slices.Equal(again, got) {
			t.Fatalf("%q is reordered again to %q, %v", got, again, err)
		}
	})
}

// mix interleaves flags and arguments, keeping the order of each.
func mix(t *rapid.T, w words) []string {
	var line []string
	flags, args := w.flags, w.args
	for len(flags)+len(args) > 0 {
		if len(args) == 0 || (len(flags) > 0 && rapid.Bool().Draw(t, "flag next")) {
			line, flags = append(line, flags[0]...), flags[1:]
			continue
		}
		line, args = append(line, args[0]), args[1:]
	}
	return line
}

func TestTwoDashesEndTheFlags(t *testing.T) {
	app := (&program{}).app()
	got, err := reorder(app, []string{"iserblk", "detach", "a", "--", "--force", "-x"})
	want := []string{"iserblk", "detach", "--", "a", "--force", "-x"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestAFlagAtTheEndLacksItsValue(t *testing.T) {
	_, err := reorder((&program{}).app(), []string{"iserblk", "attach", "x", "--queues"})
	if !errors.Is(err, worker.ErrInput) || !strings.Contains(err.Error(), "needs a value") {
		t.Errorf("got %v", err)
	}
}

func TestFlagsReachTheCommand(t *testing.T) {
	var queues int
	var args []string
	app := (&program{}).app()
	app.Command("attach").Action = func(c *cli.Context) error {
		queues, args = c.Int(flagQueues), c.Args().Slice()
		return nil
	}
	line, err := reorder(app, []string{"iserblk", "attach", "iqn.x", "--queues", "3"})
	if err == nil {
		err = app.Run(line)
	}
	if err != nil || queues != 3 || !slices.Equal(args, []string{"iqn.x"}) {
		t.Errorf("queues %d, args %q, %v", queues, args, err)
	}
}

func TestCredentialsFile(t *testing.T) {
	const text = `# everyone
user = all
secret = s p a c e s = too
[iqn.2003-01.org.linux-iscsi:disk0]
user=me
secret=#not a comment
target-user = them
target-secret = theirs
algorithms = sha256,md5
[iqn.2003-01.empty]
`
	for target, want := range map[string]worker.Credentials{
		"iqn.2003-01.other": {User: "all", Secret: "s p a c e s = too"},
		"iqn.2003-01.empty": {},
		"iqn.2003-01.org.linux-iscsi:disk0": {
			User: "me", Secret: "#not a comment", TargetUser: "them", TargetSecret: "theirs",
			Algorithms: []string{"sha256", "md5"},
		},
	} {
		got, err := parseCredentials(text, target)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", target, err, diff)
		}
	}
	for _, bad := range []string{"secret hunter2", "pasword = hunter2"} {
		if _, err := parseCredentials(bad, "x"); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// given runs the credential logic on a command line.
func given(t *testing.T, user string, args ...string) (worker.Credentials, error) {
	t.Helper()
	var creds worker.Credentials
	p := &program{root: t.TempDir()}
	app := p.app()
	app.Command("luns").Action = func(c *cli.Context) (err error) {
		creds, err = p.credentials(c, "iqn.2003-01.x:y", user)
		return err
	}
	line, err := reorder(app, append([]string{"iserblk", "luns"}, args...))
	if err == nil {
		err = app.Run(line)
	}
	return creds, err
}

func TestWhereCredentialsComeFrom(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	stored := write("stored", "user = u\nsecret = stored\n[iqn.2003-01.x:y]\nuser = mine\nsecret = particular\n")
	secret, theirs := write("secret", "filed\r\n"), write("theirs", "others\n")
	t.Run("nothing", func(t *testing.T) {
		if c, err := given(t, ""); err != nil || c.User != "" {
			t.Errorf("%+v, %v", c, err)
		}
	})
	t.Run("the file of credentials", func(t *testing.T) {
		if c, err := given(t, "", "--credentials", stored); err != nil || c.User != "mine" || c.Secret != "particular" {
			t.Errorf("%+v, %v", c, err)
		}
	})
	t.Run("a secret file before the file of credentials", func(t *testing.T) {
		c, err := given(t, "", "--credentials", stored, "--chap-secret-file", secret)
		if err != nil || c.User != "mine" || c.Secret != "filed" {
			t.Errorf("%+v, %v", c, err)
		}
	})
	t.Run("another user does not get a stored secret", func(t *testing.T) {
		if c, err := given(t, "somebody", "--credentials", stored); err == nil {
			t.Errorf("%+v", c)
		}
	})
	t.Run("the environment", func(t *testing.T) {
		t.Setenv(envSecret, "surrounding")
		if c, err := given(t, "me"); err != nil || c.Secret != "surrounding" || c.User != "me" {
			t.Errorf("%+v, %v", c, err)
		}
	})
	t.Run("mutual, with algorithms by name and number", func(t *testing.T) {
		c, err := given(t, "me", "--chap-secret-file", secret, "--chap-target-user", "them",
			"--chap-target-secret-file", theirs, "--chap-algorithms", "SHA-256,sha3-256,5")
		want := []string{"7", "8", "5"}
		if err != nil || c.TargetUser != "them" || c.TargetSecret != "others" || !slices.Equal(c.Algorithms, want) {
			t.Errorf("%+v, %v", c, err)
		}
	})
	for name, args := range map[string][]string{
		"a file of credentials that is not there": {"--credentials", filepath.Join(dir, "none")},
		"a secret without a user":                 {"--chap-secret-file", secret},
		"a target's secret without its user":      {"--chap-user", "u", "--chap-secret-file", secret, "--chap-target-secret-file", theirs},
		"a target's user without a secret":        {"--chap-user", "u", "--chap-secret-file", secret, "--chap-target-user", "t"},
		"one secret for both": {
			"--chap-user", "u", "--chap-secret-file", secret, "--chap-target-user", "t", "--chap-target-secret-file", secret,
		},
		"an unknown algorithm": {"--chap-user", "u", "--chap-secret-file", secret, "--chap-algorithms", "rot13"},
	} {
		if c, err := given(t, "", args...); err == nil {
			t.Errorf("%s: no error, %+v", name, c)
		}
	}
	if _, err := given(t, "one", "--chap-user", "two", "--chap-secret-file", secret); err == nil {
		t.Error("two users at once: no error")
	}
}
