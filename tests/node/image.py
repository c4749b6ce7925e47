# SPDX-License-Identifier: Apache-2.0
"""Bootable images from Debian's packages: mmdebstrap for the files, mke2fs for the disk."""

import json
import re
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.node import cache
from tests.node.channel import NodeError, check_output

HERE = Path(__file__).resolve().parent
GUEST_FILES = (
    HERE / "agent.py",
    HERE / "guest" / "node-agent.service",
    HERE / "guest" / "before-packages.sh",
    HERE / "guest" / "customize.sh",
)
DISK_MEBIBYTES = 3072  # sparse: only what is used takes room
KERNEL_LINE = (
    "console=ttyS0 root=LABEL=root rw mitigations=off random.trust_cpu=on no_timer_check "
    "cryptomgr.notests systemd.show_status=0"
)

BASE_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "polkitd", "udev", "kmod", "passwd", "python3"),
    *("iproute2", "procps", "curl", "psmisc", "numactl", "lsof"),
    *("linux-image-cloud-amd64", "initramfs-tools", "zstd"),
)
# What the workers' site interpreter brings of its own.
SITE_PACKAGES = ("python3-pydicom", "python3-numpy", "python3-pil")
# A frozen loop file system is how the simulator hangs a driver for good.
SIMULATOR_PACKAGES = ("e2fsprogs", "mount")
# The host's tuner, off until a test wants it, and what makes a host busy.
HOST_PACKAGES = ("tuned", "stress-ng")
EXCLUDED = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*")

FETCHED = re.compile(r"^Fetched ([\d.,]+) ([kMG]?)B in ")
UNITS = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3}


@dataclass(frozen=True)
class Recipe:
    """What an image is made of."""

    suite: str
    packages: tuple[str, ...]

    @property
    def key(self) -> str:
        """Changes with everything that goes into the image, but not with Debian's updates."""
        files = [path.read_bytes() for path in GUEST_FILES]
        sources = (Path(__file__).read_bytes(), json.dumps(asdict(self)))
        return cache.digest([*sources, *files])


RECIPES = {
    "bookworm": Recipe(
        "bookworm", BASE_PACKAGES + SITE_PACKAGES + SIMULATOR_PACKAGES + HOST_PACKAGES
    ),
    "trixie": Recipe("trixie", BASE_PACKAGES),
}


@dataclass(frozen=True)
class Image:
    """A built image: a raw disk with its kernel beside it."""

    folder: Path
    suite: str

    @property
    def disk(self) -> Path:
        """The root file system, a whole disk without partitions."""
        return self.folder / "root.raw"

    @property
    def kernel(self) -> Path:
        """Debian's kernel of that suite."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """Its initial file system."""
        return self.folder / "initrd"

    @property
    def figures(self) -> dict[str, float]:
        """How it was built: downloaded_bytes, download_seconds, total_seconds."""
        figures: dict[str, float] = json.loads((self.folder / "figures.json").read_text())
        return figures


def image(suite: str = "bookworm") -> Image:
    """The image of ``suite``, built now if it is not there; says what was downloaded."""
    if suite not in RECIPES:
        raise NodeError(f"no recipe for {suite!r}; there are: {', '.join(RECIPES)}")
    recipe = RECIPES[suite]
    folder = cache.entry("images", suite, recipe.key, "", lambda target: build(recipe, target))
    return Image(folder, suite)


def build(recipe: Recipe, folder: Path) -> None:
    """Makes the image in ``folder``; raises ``NodeError`` with the log's end where it fails."""
    cache.say(f"building the {recipe.suite} image from {len(recipe.packages)} packages and theirs")
    started = time.monotonic()
    root = folder / "root"
    try:
        downloaded_bytes, download_seconds = bootstrap(recipe, root, folder / "build.log")
        shutil.copy(next(root.glob("boot/vmlinuz-*")), folder / "vmlinuz")
        shutil.copy(next(root.glob("boot/initrd.img-*")), folder / "initrd")
        check_output(
            *("mke2fs", "-q", "-t", "ext4", "-L", "root", "-m", "0", "-d", str(root)),
            # Written now by the host, not later by the guest's kernel.
            *("-E", "lazy_itable_init=0,lazy_journal_init=0"),
            *(str(folder / "root.raw"), f"{DISK_MEBIBYTES}M"),
        )
    finally:
        shutil.rmtree(root, ignore_errors=True)
    total_seconds = time.monotonic() - started
    figures = {
        "downloaded_bytes": downloaded_bytes,
        "download_seconds": round(download_seconds, 1),
        "total_seconds": round(total_seconds, 1),
    }
    (folder / "figures.json").write_text(json.dumps(figures))
    cache.say(
        f"{recipe.suite} image: downloaded {downloaded_bytes / 1e6:.0f} MB in "
        f"{download_seconds:.1f} s; built in {total_seconds - download_seconds:.1f} s besides"
    )


def bootstrap(recipe: Recipe, root: Path, log_path: Path) -> tuple[int, float]:
    """Runs mmdebstrap; returns the bytes downloaded and the seconds that this took."""
    argv = [
        *("mmdebstrap", "--verbose", "--variant=apt", f"--include={','.join(recipe.packages)}"),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED),
        f"--essential-hook={HERE / 'guest' / 'before-packages.sh'}",
        f"--customize-hook={HERE / 'guest' / 'customize.sh'}",
        *(recipe.suite, str(root)),
    ]
    downloads = Downloads()
    with (
        log_path.open("w") as log,
        subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process,
    ):
        assert process.stdout
        for line in process.stdout:
            log.write(line)
            downloads.take(line, time.monotonic())
    if process.returncode:
        last = "".join(log_path.read_text().splitlines(keepends=True)[-20:])
        raise NodeError(f"mmdebstrap ended with {process.returncode}; the end of its log:\n{last}")
    return downloads.bytes, downloads.seconds


class Downloads:
    """Adds up what apt says it fetches, between the line that announces and the one that ends."""

    def __init__(self) -> None:
        self.bytes = 0
        self.seconds = 0.0
        self._since: float | None = None

    def take(self, line: str, now: float) -> None:
        """One line of mmdebstrap's log, at ``now`` (monotonic seconds)."""
        if line.startswith(("I: running apt-get update", "Need to get")):
            self._since = now
        elif (match := FETCHED.match(line)) and self._since is not None:
            # Repeated by whatever inherited apt's unwritten output: only the first counts.
            self.bytes += round(float(match[1].replace(",", "")) * UNITS[match[2]])
            self.seconds += now - self._since
            self._since = None
