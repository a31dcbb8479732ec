#!/bin/bash
# The export: NBD clients on a socket, in front of a real target. What they see is what
# the kernel's own initiator sees of the same LUN.
# kernels: trixie-backports bookworm-backports bookworm
# timeout: 400
# shellcheck disable=SC2119 # the helpers' defaults
source "$(dirname "$0")/lib.sh"

readonly MIB=$((1 << 20)) SIZE=48
work=/run/lab/export # of one command
mkdir -p "$work"

# sum prints the checksum of its input.
sum() { sha256sum | cut -d' ' -f1; }
sum_disk() { dd if="$1" bs=1M iflag=direct status=none | sum; }

# Debian's Python has libnbd, another may not.
PATH=/usr/sbin:/usr/bin:/sbin:/bin

# tool COMMAND... must succeed within a minute.
tool() { timeout 60 "$@" >"$work/out" 2>&1 || fail "$*: $(<"$work/out")"; }
said() { grep -qE -- "$1" "$work/out" || fail "no '$1' in: $(<"$work/out")"; }

# agree compares what clients and the kernel see, which must not look at what it has kept.
agree() {
	blockdev --flushbufs "$kernel"
	tool qemu-img compare -f raw -F raw "$uri" "$kernel"
}

# asked PATTERN looks for a command that reached the target since commands_start.
asked() { commands | grep -qE -- "$1" || { commands >&2; fail "no command like '$1'"; }; }

any_host
lab_lio_file disk $SIZE emulate_tpu=1 emulate_tpws=1 emulate_write_cache=1 emulate_fua_write=1 unmap_zeroes_data=1
lab_lio_ram locked 16
lab_lio_target portal=$PORTAL lun=disk lun=locked
uri=$(attach "$LAB_IQN/0" --frontend export)
ro=$(attach "$LAB_IQN/1" --frontend export --read-only)
socket=${uri##*=}
kernel=$(lab_ib_iser_login $PORTAL | head -n 1)
expect "the kernel's disk" "$(blockdev --getsize64 "$kernel")" $((SIZE * MIB))
expect "mode of $socket" "$(stat -c %a "$socket")" 600

# ---- what it is ----------------------------------------------------------------

tool nbdinfo "$uri"
for line in 'structured packets' "export-size: $((SIZE * MIB))" 'base:allocation' 'is_read_only: false' 'can_cache: true' 'can_df: true' \
	'can_fast_zero: true' 'can_flush: true' 'can_fua: true' 'can_multi_conn: true' 'can_trim: true' 'can_zero: true' \
	'block_size_minimum: 512' 'block_size_maximum: [0-9]+'; do
	said "$line"
done
tool nbdinfo --list "$uri"
tool nbdinfo --map "$uri"
said "^ *0 +$((SIZE * MIB)) +0 +data"
tool nbdinfo "$ro"
said 'is_read_only: true'
ok "nbdinfo"

# ---- both ways -----------------------------------------------------------------

lab_stream $SIZE 1 >"$work/image"
tool nbdcopy --flush "$work/image" "$uri"
expect "what the kernel reads of what nbdcopy wrote" "$(sum_disk "$kernel")" "$(sum <"$work/image")"
lab_stream $SIZE 2 >"$work/image"
dd if="$work/image" of="$kernel" bs=1M oflag=direct status=none
tool nbdcopy "$uri" "$work/back"
expect "what nbdcopy reads of what the kernel wrote" "$(sum <"$work/back")" "$(sum <"$work/image")"
ok "nbdcopy, both ways, and the kernel agrees"

# ---- every command and every error -----------------------------------------------

commands_start
tool nbdsh --base-allocation -u "$uri" -c '
import errno
h.set_strict_mode(0)
size = h.get_size()
data = bytes(range(256)) * 16
h.pwrite(data, 8192, nbd.CMD_FLAG_FUA)
assert h.pread(4096, 8192) == data
got = []
h.pread_structured(4096, 8192, lambda buf, off, status, err: got.append((bytes(buf), off)), nbd.CMD_FLAG_DF)
assert got == [(data, 8192)], got
h.zero(512, 8192, nbd.CMD_FLAG_NO_HOLE)
h.zero(4096, 16384, nbd.CMD_FLAG_FAST_ZERO)
assert h.pread(512, 8192) == bytearray(512)
assert h.pread(4096, 16384) == bytearray(4096)
assert h.pread(512, 8704) == data[:512]
h.trim(65536, 65536, nbd.CMD_FLAG_FUA)
h.cache(1 << 20, 0)
h.flush()
runs = []
h.block_status(1 << 20, 0, lambda c, off, e, err: runs.extend(e))
assert sum(runs[0::2]) <= 1 << 20 and runs[0] > 0, runs
def fails(want, f, *args):
    try:
        f(*args)
    except nbd.Error as e:
        assert e.errnum == want, (want, e)
        return
    raise AssertionError("no error of %r" % f)
most = h.get_block_size(nbd.SIZE_MAXIMUM)
fails(errno.EINVAL, h.pread, 512, size)
fails(errno.EINVAL, h.pread, 100, 0)
fails(errno.EINVAL, h.pread, 512, 1)
fails(errno.EOVERFLOW, h.pread, most + 512, 0)
fails(errno.ENOSPC, h.pwrite, bytes(512), size)
fails(errno.EINVAL, h.pwrite, bytes(most + 512), 0)
fails(errno.EINVAL, h.pwrite, bytes(511), 0)
fails(errno.ENOSPC, h.zero, 512, size)
fails(errno.ENOTSUP, h.zero, 512, 0, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO)
fails(errno.EINVAL, h.trim, 512, size)
fails(errno.EINVAL, h.cache, 512, size)
fails(errno.EINVAL, h.block_status, 512, size, lambda *a: 0)
h.pwrite(bytes(most), 0)
assert h.pread(most, 0) == bytearray(most)
h.shutdown()
'
asked '^0 4096 8a [0-9a-f][89a-f]'        # the write with FUA, as such
asked '^0 [0-9]+ (35|91)'                 # the flush
asked '^0 [0-9]+ (93 0[89]|42|93 08)'     # something that unmaps
tool nbdsh -u "$ro" -c '
import errno
h.set_strict_mode(0)
assert len(h.pread(512, 0)) == 512
for f in (lambda: h.pwrite(bytes(512), 0), lambda: h.trim(512, 0), lambda: h.zero(512, 0)):
    try:
        f()
        raise AssertionError("written")
    except nbd.Error as e:
        assert e.errnum == errno.EPERM, e
'
ok "nbdsh: every command, every error"

# ---- qemu ------------------------------------------------------------------------

agree
tool qemu-img convert -f raw -O raw "$uri" "$work/converted"
tool qemu-img compare -f raw -F raw "$work/converted" "$uri"
commands_start
tool qemu-io -f raw -n -c 'write -f -P 0xab 1M 64k' -c 'read -P 0xab 1M 64k' -c 'write -z -u 1M 8k' -c 'read -P 0 1M 8k' \
	-c 'write -z 1056768 512' -c 'read -P 0 1M 8704' -c 'read -P 0xab 1057280 512' -c 'discard 2M 1M' -c 'flush' "$uri"
lab_not grep -qiE 'failed|error' "$work/out" || fail "qemu-io: $(<"$work/out")"
asked '^0 65536 8a [0-9a-f][89a-f]'
agree
tool qemu-img bench -f raw -n -t none -c 2000 -d 16 -s 4k "$uri"
tool qemu-img bench -f raw -n -t none -c 1000 -d 16 -w -s 64k "$uri"
agree
ok "qemu-img compare, convert and bench; qemu-io with FUA and zeroes"

# ---- bad clients ---------------------------------------------------------------------

# anon prints the worker's own memory in KiB: what is not the arena.
anon() { awk '/^Rss(Anon|File)/ { n += $2 } END { print n }' "/proc/$(worker_pids | head -n 1)/status"; }
before=$(anon)
tool nbdsh -c "
import os, socket, struct, threading
path = '$socket'
def raw():
    # A client that has agreed on simple replies and transmits.
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    s.recv(18, socket.MSG_WAITALL)
    s.sendall(struct.pack('>I', 3) + b'IHAVEOPT' + struct.pack('>II', 1, 0))
    s.recv(10, socket.MSG_WAITALL)
    return s
def request(cmd, off, n, flags=0):
    return struct.pack('>IHHQQI', 0x25609513, flags, cmd, 7, off, n)
# One that asks for ever and never reads.
stalled = raw()
stalled.settimeout(1)
try:
    while True:
        stalled.sendall(request(0, 0, 65536) * 64)
except socket.timeout:
    pass
# Some that die in the middle of a request.
for i in range(20):
    s = raw()
    s.sendall(request(1, 0, 65536) + bytes(1000 * i))
    s.close()
    s = raw()
    s.sendall(request(0, 0, 65536) * 8)
    s.close()
# One that talks nonsense, one that writes without end.
for nonsense in (os.urandom(4096), request(1, 0, 0xffffffff)):
    s = raw()
    s.sendall(nonsense)
    try:
        while s.recv(65536):
            pass
    except ConnectionResetError:
        pass
# All the others there may be are served, and one more is refused.
clients = []
for i in range(63):
    c = nbd.NBD()
    c.connect_unix(path)
    clients.append(c)
try:
    c = nbd.NBD()
    c.connect_unix(path)
    raise AssertionError('one connection too many')
except nbd.Error:
    pass
def work(i, c):
    data = bytes([i]) * 65536
    for n in range(4):
        c.pwrite(data, i * 65536 + (1 << 24))
        assert c.pread(65536, i * 65536 + (1 << 24)) == data
threads = [threading.Thread(target=work, args=x) for x in enumerate(clients)]
for t in threads: t.start()
for t in threads: t.join()
for i, c in enumerate(clients):
    assert c.pread(65536, i * 65536 + (1 << 24)) == bytes([i]) * 65536
"
after=$(anon)
((after < 64 << 10 && after < before + (24 << 10))) || fail "the worker's own memory went from $before to $after KiB"
agree
ok "clients that stall, die and talk nonsense, and 64 at once; own memory $before KiB, then $after KiB"

# ---- TLS ----------------------------------------------------------------------------

certificates() {
	local name
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca-key.pem -out ca-cert.pem -days 2 -subj /CN=ca
	for name in server client; do
		openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $name-key.pem -out $name.csr -subj /CN=$name
		openssl x509 -req -in $name.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 2 -out $name-cert.pem \
			-extfile <(echo subjectAltName=DNS:localhost,IP:127.0.0.1)
	done
}
detach "$uri"
[[ ! -e $socket ]] || fail "$socket is left"
mkdir -p "$work/tls"
(cd "$work/tls" && certificates) >"$work/out" 2>&1 || fail "openssl: $(<"$work/out")"
uri=$(attach "$LAB_IQN/0" --frontend export --listen tcp:127.0.0.1:10809 --tls-cert "$work/tls/server-cert.pem" \
	--tls-key "$work/tls/server-key.pem" --tls-client-ca "$work/tls/ca-cert.pem")
tool nbdcopy "nbds://localhost:10809/?tls-certificates=$work/tls" "$work/back"
expect "what is read over TLS" "$(sum <"$work/back")" "$(sum_disk "$kernel")"
lab_not timeout 20 nbdinfo nbd://localhost:10809/ >"$work/out" 2>&1
said 'TLS'
ok "TCP with TLS and nothing else"

iscsiadm -m node --logoutall=all >/dev/null
detach "$uri" "$ro"
nothing_left
lab_lio_remove

# ---- block status ---------------------------------------------------------------------

# LIO cannot say where a disk has space; tgt can.
tgt
uri=
for try in 1 2 3; do
	lab_tgt_disk iqn.2026-01.lab.iserblk:thin 16 "$NAME"
	lab_tgtadm logicalunit update --tid 1 --lun 1 --params thin_provisioning=1
	if uri=$("$ISERBLK" attach --frontend export iser://$PORTAL/iqn.2026-01.lab.iserblk:thin); then
		break
	fi
	# Debian's tgtd crashes on a login now and then: that is no verdict about us.
	[[ -z $(pidof tgtd || true) ]] || fail "attach, with a tgtd that lives"
	echo "# tgtd crashed, attempt $try"
	lab_tgt_kill
	tgt
done
[[ -n $uri ]] || fail "tgtd crashed at every attempt"
tool qemu-io -f raw -n -c 'write -P 0x77 4M 1M' -c 'write -P 0x78 12M 64k' "$uri"
tool nbdinfo --map "$uri"
grep -o '^ *[0-9]* *[0-9]* *[0-9]*' "$work/out" | awk '{ print $1, $2, $3 % 2 }' >"$work/map"
expect "where there is space" "$(tr '\n' ';' <"$work/map")" "0 4194304 1;4194304 1048576 0;5242880 7340032 1;12582912 65536 0;12648448 4128768 1;"
tool qemu-img convert -f raw -O raw "$uri" "$work/thin"
tool qemu-img compare -f raw -F raw "$work/thin" "$uri"
detach "$uri"
nothing_left
ok "block status is what the target says"
lab_dmesg_check
