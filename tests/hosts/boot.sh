#!/bin/sh
# The power supply of one host: mounts its disk over the common one and boots systemd on it, again after each
# reboot. Runs as the first process of a pid and mount namespace, so that nothing outlives its end.
#   boot.sh NAME BASE FOLDER
set -eu
name=$1 base=$2 folder=$3

mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$base,upperdir=$folder/disk,workdir=$folder/work" "$folder/root"

# systemd-nspawn, which cannot register with a systemd here, boots every host into the control group that it
# is in itself: without one of its own, units of the same name would end one another's processes.
for tree in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
  [ "$(stat -f -c %T $tree 2>/dev/null)" = cgroup2fs ] || [ "$tree" = /sys/fs/cgroup/systemd ] || continue
  [ -d $tree ] || continue
  mkdir -p "$tree/$(basename "$folder")"
  echo 0 > "$tree/$(basename "$folder")/cgroup.procs"
done
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1

while :; do
  code=0
  systemd-nspawn -q -D "$folder/root" -M "$name" --hostname="$name" --boot --register=no --keep-unit \
    --link-journal=no --resolv-conf=off --timezone=off --console=pipe \
    --capability=CAP_NET_ADMIN,CAP_NET_RAW </dev/null || code=$?
  [ $code = 133 ] || exit $code # 133: it asked to be booted again
done
