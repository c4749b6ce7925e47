#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# mmdebstrap's customize hook ($1: the root): turns a Debian into the test node.
set -eu
root=$1
here=$(dirname "$(readlink -f "$0")")

install -m 755 "$here/../agent.py" "$root/usr/local/sbin/node-agent"
install -m 644 "$here/node-agent.service" "$root/etc/systemd/system/"
systemctl --root="$root" --quiet enable node-agent.service

echo node > "$root/etc/hostname"
printf '127.0.0.1 localhost node\n::1 localhost node\n' > "$root/etc/hosts"
echo 'LABEL=root / ext4 rw,relatime 0 1' > "$root/etc/fstab"
# Known, so that no boot is a first boot and every journal of the node is one journal.
echo 6770757761726465006e6f6465000001 > "$root/etc/machine-id"
chroot "$root" useradd --create-home --shell /bin/bash alice
chroot "$root" useradd --create-home --shell /bin/bash oscar
chroot "$root" passwd --quiet --delete root

# The image was made without documentation; the packages under test must bring theirs.
rm -f "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"

# Installed for the tests that want it: a node is not tuned unless its operator says so.
[ ! -e "$root/lib/systemd/system/tuned.service" ] ||
  systemctl --root="$root" --quiet disable tuned.service

# Nothing that wakes up by itself: emulated processors are slow, and a test must be alone.
systemctl --root="$root" --quiet mask \
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
  e2scrub_reap.service fstrim.timer logrotate.timer man-db.timer systemd-tmpfiles-clean.timer \
  systemd-timesyncd.service systemd-pstore.service getty@tty1.service serial-getty@ttyS0.service \
  systemd-update-utmp-runlevel.service systemd-machine-id-commit.service
