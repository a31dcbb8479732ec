#!/bin/bash
# No path for longer than --no-path-timeout: I/O fails, soon and not sooner; when
# the target is back the device works again.
# kernels: trixie-backports
# timeout: 240
# shellcheck disable=SC2119 # the helpers' defaults
source "$(dirname "$0")/lib.sh"

readonly TIMEOUT=5

# A read that prints how it ended and after how many milliseconds.
timed_read() {
	local start=${EPOCHREALTIME/./} said
	said=$(LC_ALL=C timeout 60 dd if="$device" of=/dev/null bs=4k count=1 skip=$((RANDOM % 1000)) iflag=direct 2>&1 >/dev/null) && said=good
	[[ $said != *"Input/output error"* ]] || said=EIO
	echo "$said $(((${EPOCHREALTIME/./} - start) / 1000))"
}

host
lab_lio_file file0 64 emulate_write_cache=1
lab_lio_target portal=$PORTAL lun=file0
device=$(bin/iserblk attach "iser://$PORTAL/$LAB_IQN/0" --no-path-timeout ${TIMEOUT}s)
read -r how ms < <(timed_read)
expect "a read" "$how" good

bin/hammer -errors -time 60s -settle 2s -offset $((32 << 20)) "$device" >/run/lab/hammer & load=$!
sleep 1
lab_lio_stop
read -r how ms < <(timed_read)
expect "a read without a path" "$how" EIO
((ms >= TIMEOUT * 1000 - 1500 && ms <= TIMEOUT * 1000 + 5000)) || fail "it failed after $ms ms, not $TIMEOUT s"
ok "EIO after $ms ms"

read -r how ms < <(timed_read)
expect "the next read" "$how" EIO
((ms < 2000)) || fail "the next read took $ms ms to fail: once is enough to wait"
bin/iserblk status "$device" >/dev/null || fail "status while there is no path"
bin/iserblk list -o json | jq -e '[.. | .state? | strings] | any(. == "failed")' >/dev/null ||
	fail "list does not say that the device fails: $(bin/iserblk list)"
ok "then EIO at once ($ms ms), and list says so"

lab_lio_start
lab_until 20 dd if="$device" of=/dev/null bs=4k count=1 iflag=direct || fail "no recovery"
sleep 2
kill -TERM $load
wait $load || fail "hammer: $(</run/lab/hammer)"
jq -e ".errors > 0" /run/lab/hammer >/dev/null || fail "hammer saw no error: $(</run/lab/hammer)"
lab_pattern "$device" 8 after
lab_pattern_check "$device" 8 after
ok "works again; every acknowledged write is there: $(</run/lab/hammer)"

# Detaching needs no target.
lab_lio_stop
sleep 1
start=$SECONDS
timeout 60 bin/iserblk detach "$device" --force || fail "detach --force without a target"
((SECONDS - start < 20)) || fail "detach --force took $((SECONDS - start)) s"
nothing_left
ok "detach --force without a target, in $((SECONDS - start)) s"
lab_dmesg_check
