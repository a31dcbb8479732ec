package worker

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree makes files and, for names that start with "->", links below a fake root.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		err := os.WriteFile(path, []byte(content), 0o644)
		if len(content) > 2 && content[:2] == "->" {
			_ = os.Remove(path)
			err = os.Symlink(content[2:], path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestUsersOfADevice(t *testing.T) {
	disk := map[string]string{
		"sys/block/ublkb0/dev":             "259:4\n",
		"sys/block/ublkb0/ublkb0p1/dev":    "259:5\n",
		"sys/block/ublkb0/holders/.keep":   "",
		"sys/block/ublkb10/dev":            "259:9\n",
		"proc/swaps":                       "Filename Type Size Used Priority\n",
		"proc/1/ns/mnt":                    "->mnt:[1]",
		"proc/1/mountinfo":                 "22 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n",
		"proc/1/comm":                      "init\n",
		"proc/1/fd/0":                      "->/dev/null",
		"proc/not-a-process/mountinfo":     "junk",
		"proc/2/mountinfo":                 "torn line\n1 2 3\n",
		"sys/block/ublkb0/queue/scheduler": "none",
	}
	tests := []struct {
		name  string
		extra map[string]string
		want  []string
	}{
		{"nobody", nil, nil},
		{
			"a partition mounted in another namespace, on a path with a space",
			map[string]string{
				"proc/77/ns/mnt":    "->mnt:[2]",
				"proc/77/mountinfo": `30 22 259:5 / /srv/my\040data rw shared:2 - xfs /dev/ublkb0p1 rw` + "\n",
			},
			[]string{"mounted on /srv/my data"},
		},
		{
			"btrfs, which has numbers of its own",
			map[string]string{"proc/77/mountinfo": "30 22 0:44 / /b rw - btrfs /dev/ublkb0 rw\n"},
			[]string{"mounted on /b"},
		},
		{
			"swap",
			map[string]string{"proc/swaps": "Filename Type Size\n/dev/ublkb0p1 partition 99 0 -2\n"},
			[]string{"used as swap"},
		},
		{
			"device mapper",
			map[string]string{"sys/block/ublkb0/ublkb0p1/holders/dm-3": ""},
			[]string{"part of dm-3"},
		},
		{
			"a program",
			map[string]string{"proc/88/comm": "fio\n", "proc/88/fd/7": "->/dev/ublkb0"},
			[]string{"open by fio (pid 88)"},
		},
		{
			"another disk whose name goes on",
			map[string]string{"proc/88/comm": "fio\n", "proc/88/fd/7": "->/dev/ublkb10", "proc/swaps": "/dev/ublkb01 x\n"},
			nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all := map[string]string{}
			for k, v := range disk {
				all[k] = v
			}
			for k, v := range tt.extra {
				all[k] = v
			}
			os.RemoveAll(filepath.Join(t.TempDir(), "x"))
			root := tree(t, all)
			_ = os.Remove(filepath.Join(root, "sys/block/ublkb0/holders/.keep"))
			if diff := cmp.Diff(tt.want, users(root, "/dev/ublkb0", everybody)); diff != "" {
				t.Errorf("users (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhichMountsAServerDoesNotNeed(t *testing.T) {
	const mountinfo = `22 1 254:0 / / rw - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
24 22 0:5 / /dev rw - devtmpfs udev rw
25 22 0:30 / /run rw - tmpfs tmpfs rw
26 22 254:1 / /usr rw - ext4 /dev/vdb rw
27 22 254:2 / /home rw - ext4 /dev/vdc rw
28 22 259:4 / /srv/disk rw - xfs /dev/ublkb0 rw
29 22 0:44 / /srv/btrfs rw - btrfs /dev/ublkb1 rw
30 22 0:50 / /mnt/nfs rw - nfs4 server:/x rw
31 22 254:3 / /var rw - ext4 /dev/vdd rw
`
	keep := []string{"/proc", "/etc", "/usr/lib", "/run/iserblk", "/var/lib/iserblk"}
	var dropped []string
	for _, m := range parseMounts(mountinfo) {
		if m.onDisk() && !m.holdsAny(keep) {
			dropped = append(dropped, m.point)
		}
	}
	if diff := cmp.Diff([]string{"/home", "/srv/disk", "/srv/btrfs"}, dropped); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
}
