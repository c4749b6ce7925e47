# SPDX-License-Identifier: Apache-2.0
"""Whether this machine's KVM really runs a Debian kernel.

``/dev/kvm`` may exist and be unusable: some nested hypervisors stop QEMU at an unknown register, on
others the kernel hangs after it was unpacked.  So a kernel is booted once, and the verdict kept
until the machine, QEMU or the kernel is another one.
"""

import os
import select
import subprocess
import time
from pathlib import Path

from tests.node import cache
from tests.node.hardware import KVM
from tests.node.image import Image

DEVICE = Path("/dev/kvm")
BOOT_SECONDS = 8.0  # a usable KVM takes under 2
# The last line before the kernel hands over; here to a program that ends at once.
BOOTED = b"as init process"


def usable(image: Image) -> bool:
    """Whether ``image`` boots with KVM here; asks the machine at most once."""
    if not DEVICE.exists() or not os.access(DEVICE, os.R_OK | os.W_OK):
        return False
    key = cache.digest(
        (
            Path("/proc/sys/kernel/random/boot_id").read_text(),
            cache.qemu_version(),
            str(image.folder),
        )
    )
    folder = cache.entry("kvm", image.suite, key, "", lambda target: probe(image, target))
    return (folder / "usable").exists()


def probe(image: Image, folder: Path) -> None:
    """Boots the kernel under KVM; leaves the file ``usable`` where it came to its end."""
    console = boot_console(image, BOOT_SECONDS)
    (folder / "console").write_bytes(console)
    if BOOTED in console:
        (folder / "usable").touch()
        cache.say("KVM works here: the node uses it")
    else:
        cache.say("/dev/kvm is there but boots no kernel: the node is emulated")


def boot_console(image: Image, deadline_seconds: float) -> bytes:
    """What the kernel prints until it starts a program, QEMU ends, or the time is over."""
    argv = [
        *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-M", "q35", *KVM, "-m", "256"),
        *("-smp", "2", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
        *("-append", "console=ttyS0 panic=-1 rdinit=/bin/true"),
    ]
    deadline = time.monotonic() + deadline_seconds
    console = bytearray()
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        while BOOTED not in console and (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([process.stdout], [], [], left)
            data = os.read(process.stdout.fileno(), 1 << 16) if readable else b""
            if not data:
                break
            console += data
        process.kill()
    return bytes(console)
