package main

import (
	"fmt"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/urfave/cli/v2"
)

func (p *program) manCommand() *cli.Command {
	return &cli.Command{
		Name:   "man",
		Usage:  "print the manual page",
		Hidden: true,
		Action: func(*cli.Context) error {
			_, err := p.stdout.Write(md2man.Render([]byte(manual(p.app()))))
			return err
		},
	}
}

// manual is the page in Markdown, as md2man takes it.
func manual(app *cli.App) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%% iserblk 8\n\n# NAME\n\niserblk - %s\n\n# SYNOPSIS\n\n", app.Usage)
	for _, c := range visible(app) {
		fmt.Fprintf(&b, "**iserblk %s** [*options*] %s\n\n", c.Name, plain(c.ArgsUsage))
	}
	b.WriteString("# DESCRIPTION\n\n" + plain(manualIntro) + "\n\n# COMMANDS\n\n")
	for _, c := range visible(app) {
		fmt.Fprintf(&b, "## %s\n\n%s.\n\n", strings.TrimSpace(c.Name+" "+plain(c.ArgsUsage)), sentence(c.Usage))
		manualFlags(&b, c.Flags)
	}
	b.WriteString("# OPTIONS OF EVERY COMMAND\n\n")
	manualFlags(&b, app.Flags)
	b.WriteString(manualRest)
	return b.String()
}

func visible(app *cli.App) []*cli.Command {
	var all []*cli.Command
	for _, c := range app.Commands {
		if !c.Hidden {
			all = append(all, c)
		}
	}
	return all
}

func manualFlags(b *strings.Builder, flags []cli.Flag) {
	for _, f := range flags {
		doc, ok := f.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		value, usage := placeholder(doc.GetUsage())
		var names []string
		for _, n := range f.Names() {
			names = append(names, "**"+dashes(n)+"**")
		}
		fmt.Fprintf(b, "%s%s\n: %s.%s\n\n", strings.Join(names, ", "), value, plain(sentence(usage)), defaultText(doc))
	}
}

func dashes(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// placeholder takes the name of a flag's value out of its usage, where it stands in backquotes.
func placeholder(usage string) (value, text string) {
	if parts := strings.Split(usage, "`"); len(parts) == 3 {
		return " *" + parts[1] + "*", strings.Join(parts, "")
	}
	return "", usage
}

func defaultText(f cli.DocGenerationFlag) string {
	v := strings.Trim(f.GetDefaultText(), `"`)
	if !f.TakesValue() || v == "" || v == "0" || v == "0s" {
		return ""
	}
	return " Default: " + plain(v) + "."
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// plain keeps Markdown from seeing anything in s.
func plain(s string) string {
	return strings.NewReplacer("[", `\[`, "]", `\]`, "*", `\*`, "_", `\_`, "<", `\<`, "|", `\|`).Replace(s)
}

const manualIntro = `Logs in to targets that speak iSER (iSCSI over RDMA: LIO, tgt, SCST) and serves each LUN as a local
block device. Everything runs in user space: neither iscsid nor the kernel's iSCSI initiator is needed, and it works in
any network namespace.

A portal is HOST[:PORT], with an IPv6 address in brackets and port 3260 if none is given. A target is
iser://[USER@]PORTAL[,PORTAL...]/NAME[/LUN]; several portals are several ways to one target. Without a LUN all of them
are meant. Options may stand before and after the arguments.

There are three ways to a disk. **ublk** makes /dev/ublkbN and is the fastest; when its worker dies its I/O fails, or waits for
another worker with **--dead-timeout -1s**. **nbd** makes /dev/nbdN by the kernel's NBD
client; when its worker dies the kernel holds the I/O back until another takes the device over. **export** makes no device:
it serves the LUN to NBD clients (qemu, nbdcopy, nbd-client) on a unix socket, or on TCP with TLS, and needs neither
privileges nor io_uring. By itself attach takes ublk, else nbd.

For each target one worker process serves all its LUNs. Attaching another LUN of the target joins it, detaching the last
one ends it. Attach prints nothing but the paths of the devices, or the URIs of the exports, once they can be used.`

const manualRest = `# SIGNALS

A worker that gets SIGTERM, SIGINT or SIGHUP detaches its devices and exits. While one of them is mounted or open it
refuses and goes on; the next signal detaches by force, so that what is still under way fails. The same holds for
**attach --foreground**.

# RECOVERY

When a worker dies, **iserblk list** shows its /dev/nbdN, and those /dev/ublkbN that were attached with **--dead-timeout -1s**,
as parked: what the kernel had sent to the worker, and what comes now, waits for **--dead-timeout**, then it fails. On a
/dev/ublkbN it waits until there is a worker or the device is detached. The next worker of the same target takes all of them over, before it does
anything else: whether **attach** starts it, for any LUN of the target, or **recover**, which does it for every target. It
logs in as the dead one did, which ends what that one had under way, and checks that the LUN is still the same. Secrets are
not written down: recover looks for them where attach does. Other /dev/ublkbN do not outlive their worker: their I/O fails.

# CREDENTIALS

Secrets never stand on a command line. They come from the files of **--chap-secret-file** and
**--chap-target-secret-file**, from the environment, or from the credentials file, in this order. No such file may be
readable to every user. The credentials file has lines of "key = value" with the keys user, secret, target-user,
target-secret and algorithms. A line with a target's name in brackets starts what holds for this target alone; what
stands before the first such line, or below \[\*\], holds for all targets without lines of their own.

# ENVIRONMENT

**ISERBLK_RUN_DIR**, **ISERBLK_STATE_DIR**
: As --run-dir and --state-dir.

**ISERBLK_CHAP_SECRET**, **ISERBLK_CHAP_TARGET_SECRET**
: Our CHAP secret and the target's.

# FILES

/etc/iscsi/initiatorname.iscsi
: The host's iSCSI name. Without it one is made up once and kept in the state directory.

/etc/iserblk/credentials
: CHAP users and secrets.

/var/lib/iserblk
: The host's identity towards targets. It must survive reboots: sessions that a crash left at a target can only be
ended with it.

/run/iserblk
: Control sockets, locks, logs, who serves what, and the sockets of exports (NAME-LUN.nbd).

$XDG_RUNTIME_DIR/iserblk, $XDG_STATE_HOME/iserblk
: Take the place of the last two for users other than root.

# EXIT STATUS

The codes are those of iscsiadm(8) where one fits.

| Code | Meaning |
|------|---------|
| 0 | done |
| 1 | failed for a reason without a code of its own; doctor: something fails |
| 4 | the portal refused the connection, or its name or route is unknown |
| 7 | bad input |
| 8 | the portal did not answer in time |
| 12 | no RDMA, no RDMA device on the route, a kernel module is missing, or too little memory may be locked |
| 13 | permission denied |
| 15 | the LUN is attached already |
| 18 | the worker does not answer |
| 19 | the target refused the login |
| 21 | no such target, LUN or device |
| 24 | authentication failed |
| 27 | the kernel or this program lacks what was asked for |
| 28 | the device is mounted or open |
| 130 | interrupted |

# SEE ALSO

iscsiadm(8), rdma(8), lsblk(8)
`
