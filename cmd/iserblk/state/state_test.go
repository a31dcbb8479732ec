package state

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func TestNames(t *testing.T) {
	good := []string{
		"iqn.2003-01.org.linux-iscsi:disk0", "iqn.2001-04.com.example", "iqn.2001-04.com.example:storage.tape1_a-b:c",
		"eui.02004567A425678D", "naa.52004567BA64678D", "naa.62004567BA64678D0123456789ABCDEF",
		"iqn.2001-04.com.example:" + strings.Repeat("x", 199),
	}
	for _, name := range good {
		if err := CheckName(name); err != nil {
			t.Errorf("%q is refused: %v", name, err)
		}
	}
	bad := []string{
		"", "disk", "IQN.2001-04.com.example", "iqn.2001-13.com.example", "iqn.01-04.com.example", "iqn.2001-04.",
		"iqn.2001-04.com.example:", "iqn.2001-04.com.example:a b", "iqn.2001-04.com.example/../x",
		"iqn.2001-04.com.example:a/b", "iqn.2001-04.com.example:ä", "eui.0200", "naa.52004567BA64678",
		"iqn.2001-04.com.example:" + strings.Repeat("x", 200), "iqn.2001-04.com.example:a\n",
	}
	for _, name := range bad {
		if err := CheckName(name); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v, want ErrName", name, err)
		}
	}
}

func TestISIDsAreOfTheRandomTypeAndNeverOpenISCSIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Seed
		copy(s[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed"))
		id := s.ISID(rapid.String().Draw(t, "target"), rapid.String().Draw(t, "path"), rapid.IntRange(0, 255).Draw(t, "lane"))
		if id[0] != 0x80 {
			t.Fatalf("ISID %s is not of type 0x80", id)
		}
		if f := FreshISID(); f[0] != 0x80 {
			t.Fatalf("fresh ISID %s is not of type 0x80", f)
		}
	})
}

func TestISIDsDependOnEveryPart(t *testing.T) {
	var a, b Seed
	b[31] = 1
	seen := map[ISID]string{}
	add := func(what string, id ISID) {
		if other, dup := seen[id]; dup {
			t.Errorf("%s and %s have ISID %s", what, other, id)
		}
		seen[id] = what
	}
	add("base", a.ISID("target", "path", 0))
	add("another host", b.ISID("target", "path", 0))
	add("another target", a.ISID("targe", "path", 0))
	add("the border moved", a.ISID("targetp", "ath", 0))
	add("another path", a.ISID("target", "path2", 0))
	for lane := 1; lane < 300; lane++ {
		add("another lane", a.ISID("target", "path", lane))
	}
	// What it was must stay what it is, or no restart ends the sessions of the version before.
	if got := a.ISID("target", "path", 0).String(); got != "80379557d804" {
		t.Errorf("the derivation has changed: %s", got)
	}
}

func TestSeedIsMadeOnceAndKept(t *testing.T) {
	d, err := Dirs{Run: filepath.Join(t.TempDir(), "run"), Keep: filepath.Join(t.TempDir(), "a", "keep")}.Ensure()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	seeds := make([]Seed, 8)
	for i := range seeds {
		wg.Go(func() {
			s, err := d.Seed()
			if err != nil {
				t.Error(err)
			}
			seeds[i] = s
		})
	}
	wg.Wait()
	for _, s := range seeds {
		if s != seeds[0] || s == (Seed{}) {
			t.Fatal("racing processes got different seeds")
		}
	}
	entries, _ := os.ReadDir(d.Keep)
	info, err := os.Stat(filepath.Join(d.Keep, "seed"))
	if err != nil || info.Mode().Perm() != 0o600 || len(entries) != 1 {
		t.Errorf("seed file: %v, %v, %d files", info, err, len(entries))
	}
}

func TestADirectoryThatOthersMayWriteToIsRefused(t *testing.T) {
	d := Dirs{Run: t.TempDir(), Keep: t.TempDir()}
	if err := os.Chmod(d.Run, 0o1777); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Ensure(); err == nil || !strings.Contains(err.Error(), "chmod go-w "+d.Run) {
		t.Errorf("got %v", err)
	}
}

func TestADamagedSeedIsAnErrorWithAWayOut(t *testing.T) {
	d := Dirs{Keep: t.TempDir()}
	for _, text := range []string{"", "abc", strings.Repeat("zz", 32), strings.Repeat("00", 33)} {
		if err := os.WriteFile(filepath.Join(d.Keep, "seed"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Seed(); err == nil || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("seed %q: %v", text, err)
		}
	}
}

func TestInitiatorNameComesFromOpenISCSIFirst(t *testing.T) {
	root, d := t.TempDir(), Dirs{Keep: t.TempDir()}
	made, err := d.InitiatorName(root)
	if err != nil || CheckName(made) != nil || !strings.HasPrefix(made, "iqn.") {
		t.Fatalf("made-up name %q: %v", made, err)
	}
	if again, _ := d.InitiatorName(root); again != made {
		t.Errorf("the second time it is %q, not %q", again, made)
	}
	file := filepath.Join(root, iscsiName)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	text := "## made at boot\n#InitiatorName=iqn.1999-01.no\nInitiatorName=iqn.1993-08.org.debian:01:abc\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := d.InitiatorName(root); err != nil || got != "iqn.1993-08.org.debian:01:abc" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := os.WriteFile(file, []byte("GenerateName=yes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.InitiatorName(root); err == nil || !strings.Contains(err.Error(), "--initiator-name") {
		t.Errorf("a file without a name: %v", err)
	}
}

func TestWriteFileReplacesAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	for _, want := range []string{"one", "two, which is longer"} {
		if err := WriteFile(file, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(file); string(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(file)); len(entries) != 1 {
		t.Errorf("%d files left", len(entries))
	}
	if err := WriteFile(filepath.Join(t.TempDir(), "no", "f"), nil); err == nil {
		t.Error("no error for a directory that is not there")
	}
}

func TestOnlyRootKeepsThingsInTheSystemsDirectories(t *testing.T) {
	env := map[string]string{"XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/home/joe"}
	get := func(k string) string { return env[k] }
	if d := Default(0, get); d != (Dirs{DefaultRun, DefaultKeep}) {
		t.Errorf("root: %+v", d)
	}
	if d := Default(7, get); d != (Dirs{"/run/user/7/iserblk", "/home/joe/.local/state/iserblk"}) {
		t.Errorf("joe: %+v", d)
	}
	env["XDG_STATE_HOME"] = "/var/joe"
	if d := Default(7, get); d.Keep != "/var/joe/iserblk" {
		t.Errorf("joe with XDG_STATE_HOME: %+v", d)
	}
	if d := Default(7, func(string) string { return "" }); d != (Dirs{DefaultRun, DefaultKeep}) {
		t.Errorf("joe without surroundings: %+v", d)
	}
}
