#!/bin/bash
# CHAP: one way and mutual, wherever the secrets come from, and never to be seen.
# kernels: trixie-backports
# timeout: 240
source "$(dirname "$0")/lib.sh"

readonly OURS=suite-secret-of-ours THEIRS=suite-secret-of-theirs
both() { lab_lio_target "$1" portal=$PORTAL lun=ram0 chap=joe:$OURS mutual=lio:$THEIRS; }

host
lab_lio_ram ram0 16
mutual=iqn.2026-01.lab.iserblk:mutual
both $mutual
umask 077
echo $OURS >/run/lab/ours
echo $THEIRS >/run/lab/theirs
echo wrong-secret-1 >/run/lab/wrong
url=iser://$PORTAL/$mutual
given=(--chap-user joe --chap-secret-file /run/lab/ours --chap-target-user lio --chap-target-secret-file /run/lab/theirs)

device=$(bin/iserblk attach "$url/0" "${given[@]}")
lab_pattern "$device" 4 chap
lab_pattern_check "$device" 4 chap
# Where others could look: command lines, environments, everything in the run directory.
for pid in $(worker_pids); do
	! grep -aE "$OURS|$THEIRS" "/proc/$pid/cmdline" "/proc/$pid/environ" || fail "a secret shows in /proc/$pid"
done
! grep -raE "$OURS|$THEIRS" $RUN || fail "a secret shows in $RUN"
[[ -z $(find $RUN -perm /077 -not -type s) ]] || fail "others may read $(find $RUN -perm /077 -not -type s)"
ok "mutual, from files: $device"

# The session that has to be made anew needs the secrets again.
lab_lio_stop $mutual
sleep 1
lab_lio_start $mutual
timeout 30 dd if="$device" of=/dev/null bs=4k count=8 iflag=direct status=none || fail "no way back in"
lab_pattern_check "$device" 4 chap
bin/iserblk detach "$device"
ok "logged in again after the target was away"

device=$(ISERBLK_CHAP_SECRET=$OURS ISERBLK_CHAP_TARGET_SECRET=$THEIRS bin/iserblk attach \
	"iser://joe@$PORTAL/$mutual/0" --chap-target-user lio)
for pid in $(worker_pids); do
	! grep -aE "$OURS|$THEIRS" "/proc/$pid/environ" || fail "a secret shows in the worker's environment"
done
bin/iserblk detach "$device"
ok "mutual, from the environment"

mkdir -p /etc/iserblk
printf '[%s]\nuser = joe\nsecret = %s\ntarget-user = lio\ntarget-secret = %s\n' $mutual $OURS $THEIRS >/etc/iserblk/credentials
device=$(bin/iserblk attach "$url/0")
bin/iserblk detach "$device"
bin/iserblk luns "$url" | grep -q RAMDISK || fail "luns with stored credentials"
rm /etc/iserblk/credentials
ok "mutual, from the credentials file"

for algorithm in sha256 sha1 md5; do
	device=$(bin/iserblk attach "$url/0" "${given[@]}" --chap-algorithms $algorithm) || fail "$algorithm"
	bin/iserblk detach "$device"
done
ok "each hash on its own"

refuse 24 'auth|CHAP' bin/iserblk attach "$url/0"
refuse 24 'auth|CHAP' bin/iserblk attach "$url/0" --chap-user joe --chap-secret-file /run/lab/wrong
refuse 24 'auth|CHAP' bin/iserblk attach "$url/0" --chap-user joe --chap-secret-file /run/lab/ours \
	--chap-target-user lio --chap-target-secret-file /run/lab/wrong
refuse 24 'auth|CHAP' bin/iserblk attach "$url/0" --chap-user joe --chap-secret-file /run/lab/ours \
	--chap-target-user someone --chap-target-secret-file /run/lab/theirs
chmod 644 /run/lab/ours
refuse 7 'chmod' bin/iserblk attach "$url/0" --chap-user joe --chap-secret-file /run/lab/ours
chmod 600 /run/lab/ours
refuse 7 'secret-file|SECRET' bin/iserblk attach "iser://joe:$OURS@$PORTAL/$mutual/0"
nothing_left
ok "wrong, missing and careless secrets are refused"

# A target that wants no proof of us still has to give its own if it is asked to.
open=iqn.2026-01.lab.iserblk:open
lab_lio_target $open portal=$PORTAL lun=ram0
refuse 24 'prove itself by mutual CHAP' bin/iserblk attach "iser://$PORTAL/$open/0" "${given[@]}"
ok "a target that skips CHAP is not taken for one that proved itself"

oneway=iqn.2026-01.lab.iserblk:oneway
lab_lio_target $oneway portal=$PORTAL lun=ram0 chap=joe:$OURS
device=$(bin/iserblk attach "iser://$PORTAL/$oneway/0" --chap-user joe --chap-secret-file /run/lab/ours)
bin/iserblk detach "$device"
ok "one way"

nothing_left
lab_dmesg_check
