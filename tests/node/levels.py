# SPDX-License-Identifier: Apache-2.0
"""How far a node is when a test gets it: booted, or with gpuwarden installed and running.

Each level is made once and kept as a snapshot (disk, memory, devices); a test's node is a private
continuation of it, there in about half a second.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from tests.node import cache, kvm
from tests.node.channel import NodeError, check_output
from tests.node.hardware import Hardware, Memory
from tests.node.image import image
from tests.node.vm import Machine, Node, make_overlay

DIST = cache.PROJECT / "dist"
PACKAGES = ("gpuwarden", "gpuwarden-simulator")
CONFIG_PATH = "/etc/gpuwarden/conf.d/50-node.toml"
DEFAULT_HARDWARE = Hardware()
# The defaults are those of a server. The node has 1.5 GiB, and each process that decodes images
# would be a quarter of what a worker's start costs it; two are what `make test` has outside of it.
DEFAULT_CONFIG = '[workers]\nmemory_max_bytes = "400M"\npreprocess_processes = 1\n'
INSTALL_SECONDS = 300.0
# What was on the disk before our packages, to tell what they leave behind.
FILES_BEFORE = "/var/tmp/files-before"
LIST_FILES = (
    r"find / -xdev \( -path /proc -o -path /sys -o -path /tmp -o -path /var/tmp \) -prune -o -print"
)
RUNNING_SECONDS = 480.0
# By the guard's own word, which costs an emulated node less to look at again and again.
RUNNING = 'until grep -qs \'"state":"running"\' /run/gpuwarden/guard/state.json; do sleep 0.5; done'
STATE_COMMAND = "busctl get-property org.gpuwarden1 /org/gpuwarden1 org.gpuwarden1.Manager State"


def machine(suite: str = "bookworm", hardware: Hardware = DEFAULT_HARDWARE) -> Machine:
    """The machine of ``suite``: its image is built, KVM is tried, if that was not done yet."""
    chosen = image(suite)
    return Machine(chosen, hardware, kvm.usable(chosen))


@contextlib.contextmanager
def booted_node(suite: str = "bookworm", hardware: Hardware = DEFAULT_HARDWARE) -> Iterator[Node]:
    """A clean Debian that has just booted, without our packages."""
    chosen = machine(suite, hardware)
    with continued(chosen, booted_level(chosen)) as node:
        yield node


@contextlib.contextmanager
def installed_node(
    suite: str = "bookworm", hardware: Hardware = DEFAULT_HARDWARE, config: str = DEFAULT_CONFIG
) -> Iterator[Node]:
    """A node with both packages installed and ``medgemma-guard`` running.

    ``config`` is the text of a configuration file to install before the start.
    """
    chosen = machine(suite, hardware)
    with continued(chosen, installed_level(chosen, debs(), config)) as node:
        yield node


@contextlib.contextmanager
def cold_node(suite: str = "bookworm", hardware: Hardware = DEFAULT_HARDWARE) -> Iterator[Node]:
    """A Debian that boots now, kernel and all; takes ten seconds or more where emulated."""
    chosen = machine(suite, hardware)
    with cache.using(chosen.image.folder), cache.workspace() as folder:
        make_overlay(chosen.image.disk, "raw", folder / "disk.qcow2")
        with Node(chosen, folder, folder / "disk.qcow2") as node:
            node.power_on()
            yield node


@contextlib.contextmanager
def continued(chosen: Machine, level: Path) -> Iterator[Node]:
    """A private continuation of the snapshot in ``level``."""
    with cache.using(*entries_of(level / "disk.qcow2")), cache.workspace() as folder:
        make_overlay(level / "disk.qcow2", "qcow2", folder / "disk.qcow2")
        with Node(chosen, folder, folder / "disk.qcow2") as node:
            node.restore(level, Memory(level))
            yield node


@contextlib.contextmanager
def rebooted(chosen: Machine, level: Path) -> Iterator[Node]:
    """The disk of the snapshot in ``level`` in another machine, which boots it now."""
    with cache.using(*entries_of(level / "disk.qcow2")), cache.workspace() as folder:
        make_overlay(level / "disk.qcow2", "qcow2", folder / "disk.qcow2")
        with Node(chosen, folder, folder / "disk.qcow2") as node:
            node.power_on()
            yield node


def entries_of(disk: Path) -> list[Path]:
    """The entries that a disk stands on, its own among them: they stay while it is in use."""
    told = check_output(
        "qemu-img", "info", "--force-share", "--backing-chain", "--output=json", str(disk)
    )
    return [Path(each["filename"]).parent for each in json.loads(told)]


def debs() -> list[Path]:
    """The packages to test, one of each in ``dist``; raises ``NodeError`` naming what is wrong."""
    found = []
    for package in PACKAGES:
        candidates = sorted(DIST.glob(f"{package}_*.deb"))
        if len(candidates) != 1:
            names = ", ".join(path.name for path in candidates) or "none"
            raise NodeError(f"need exactly one {package}_*.deb in {DIST}, found {names}: make deb")
        found += candidates
    return found


# -- making ---------------------------------------------------------------------------------


def booted_level(chosen: Machine) -> Path:
    """The snapshot of the booted system, made now if need be."""

    def build(folder: Path) -> None:
        started = time.monotonic()
        make_overlay(chosen.image.disk, "raw", folder / "disk.qcow2")
        with Node(chosen, folder, folder / "disk.qcow2") as node:
            node.power_on(Memory(folder, shared=True))
            node.save(folder)
        cache.say(f"{suite}: booted and saved in {time.monotonic() - started:.1f} s")

    suite = chosen.image.suite
    return cache.entry("booted", suite, machine_key(chosen), variant(chosen), build)


def unstarted_level(chosen: Machine, packages: list[Path]) -> Path:
    """The snapshot of the node with ``packages`` installed, and nothing else done."""

    def do(node: Node) -> None:
        node.run(f"{LIST_FILES} > {FILES_BEFORE}")
        install(node, packages)

    key = cache.digest([machine_key(chosen), *(path.read_bytes() for path in packages)])
    return level_above(booted_level(chosen), "unstarted", chosen, key, variant(chosen), do)


def installed_level(chosen: Machine, packages: list[Path], config: str | None) -> Path:
    """The snapshot of the node with ``packages`` installed and the service running."""
    below = unstarted_level(chosen, packages)
    key = cache.digest([machine_key(chosen), below.name, *(each.read_bytes() for each in packages)])
    name = variant(chosen, config)
    return level_above(
        below, "installed", chosen, key, name, lambda node: start_service(node, config)
    )


def level_above(
    below: Path, kind: str, chosen: Machine, key: str, name: str, do: Callable[[Node], None]
) -> Path:
    """The snapshot that ``do`` makes of the node in ``below``, made now if need be."""

    def build(folder: Path) -> None:
        started = time.monotonic()
        for memory in below.glob("memory*"):
            cache.copy_sparse(memory, folder / memory.name)
        make_overlay(below / "disk.qcow2", "qcow2", folder / "disk.qcow2")
        with (
            cache.using(*entries_of(below / "disk.qcow2")),
            Node(chosen, folder, folder / "disk.qcow2") as node,
        ):
            node.restore(below, Memory(folder, shared=True))
            do(node)
            node.save(folder)
        cache.say(f"{suite}: {kind} and saved in {time.monotonic() - started:.1f} s")

    suite = chosen.image.suite
    return cache.entry(kind, suite, key, name, build)


def install(node: Node, packages: list[Path]) -> None:
    """Installs ``packages`` as an operator without a network does."""
    paths = [f"/var/tmp/{path.name}" for path in packages]
    for source, path in zip(packages, paths, strict=True):
        node.put(source, path)
    node.run(["dpkg", "--install", *paths], timeout_seconds=INSTALL_SECONDS)
    node.run(["rm", *paths])


def start_service(node: Node, config: str | None = None) -> None:
    """Starts the guard and waits until it says that everything runs.

    Raises ``NodeError`` with the journal when it does not.
    """
    if config is not None:
        node.run(f"mkdir -p {Path(CONFIG_PATH).parent}")
        node.put(config.encode(), CONFIG_PATH)
    try:
        node.run(f"systemctl start medgemma-guard; {RUNNING}", timeout_seconds=RUNNING_SECONDS)
        node.wait_until(STATE_COMMAND, r'^s "running"$', RUNNING_SECONDS)
    except NodeError as error:
        raise NodeError(f"{error}\njournal:\n{node.journal()}") from error


def variant(chosen: Machine, config: str | None = None) -> str:
    """A name for what may differ between snapshots that are in use at the same time."""
    return cache.digest([json.dumps(asdict(chosen.hardware)), str(config)])


def machine_key(chosen: Machine) -> str:
    """Changes with everything that a snapshot depends on, the hardware asked for apart."""
    here = Path(__file__).parent
    code = [here / name for name in ("vm.py", "levels.py", "hardware.py", "image.py")]
    return cache.digest(
        [
            chosen.image.folder.as_posix(),
            f"kvm: {chosen.kvm}",
            cache.qemu_version(),
            *(path.read_bytes() for path in code),
        ]
    )
