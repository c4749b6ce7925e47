#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# mmdebstrap's essential hook ($1: the root): an initrd with only what the node's disk needs.
# A third of the size, built in a fraction of the time, unpacked faster under emulation.
set -eu
install -d "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
printf 'MODULES=list\nCOMPRESS=zstd\n' > "$1/etc/initramfs-tools/conf.d/node"
printf 'virtio_pci\nvirtio_blk\next4\ncrc32c_generic\n' > "$1/usr/share/initramfs-tools/modules.d/node"
