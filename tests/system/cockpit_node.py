# SPDX-License-Identifier: Apache-2.0
"""Cockpit in a node that has no network: its packages, and one port of its own for the browser.

Both are this test's alone: the image stays as small as it is for all others.
"""

import shutil
import socket
import subprocess
from pathlib import Path

from tests.node import cache, levels
from tests.node.channel import NodeError
from tests.node.hardware import LOGGED_DISK_BUS
from tests.node.vm import Node

# Without what they recommend: storage, updates and the like are no part of this. sudo is how
# Cockpit gives its administrative access.
PACKAGES = ("cockpit-ws", "cockpit-bridge", "cockpit-system", "sudo")
PORT = 9090
INSTALL_SECONDS = 300.0
DOWNLOAD_SECONDS = 300.0
# QEMU's own network has the guest at this address.
ADDRESS = "10.0.2.15/24"
NETWORK_UP = f"""
modprobe virtio_net
until [ "$(ls /sys/class/net | grep -cvx lo)" -gt 0 ]; do sleep 0.1; done
udevadm settle  # it gets its name
name=$(ls /sys/class/net | grep -vx lo | head -1)
ip address add {ADDRESS} dev "$name" && ip link set "$name" up
"""


def install_cockpit(node: Node) -> None:
    """Installs Cockpit and our page in it, and lets it listen."""
    ours = list(levels.DIST.glob("cockpit-gpuwarden_*.deb"))
    if len(ours) != 1:
        raise NodeError(f"need exactly one cockpit-gpuwarden_*.deb in {levels.DIST}: make deb")
    folder = "/var/tmp/cockpit"
    node.run(["mkdir", folder])
    for deb in (*downloaded(node), *ours):
        node.put(deb, f"{folder}/{deb.name}")
    command = f"DEBIAN_FRONTEND=noninteractive dpkg --install {folder}/*.deb"
    node.run(command, timeout_seconds=INSTALL_SECONDS)
    node.run("systemctl start cockpit.socket")
    # The first who asks has it make its certificate, which takes an emulated processor seconds.
    first = f"curl --silent --insecure --output /dev/null https://127.0.0.1:{PORT}/"
    node.run(first, timeout_seconds=INSTALL_SECONDS)


def downloaded(node: Node) -> list[Path]:
    """What apt would install in the node for ``PACKAGES``, fetched by this machine's apt.

    This machine is of the node's release: `make` is for Debian 12.
    """
    status = node.get("/var/lib/dpkg/status")

    def fetch(folder: Path) -> None:
        archives = folder / "archives"
        (archives / "partial").mkdir(parents=True)
        (folder / "status").write_bytes(status)
        install = ["install", "--yes", "--download-only", "--no-install-recommends", *PACKAGES]
        try:
            apt(folder, install)
        except NodeError:
            # The lists are older than what the archive has.
            apt(folder, ["update"])
            apt(folder, install)
        shutil.rmtree(archives / "partial")

    key = cache.digest([status, *PACKAGES])
    folder = cache.entry("cockpit", node.machine.image.suite, key, "", fetch)
    return sorted((folder / "archives").glob("*.deb"))


def apt(folder: Path, arguments: list[str]) -> None:
    """This machine's apt-get, with the packages that the node has."""
    done = subprocess.run(
        [
            "apt-get",
            "--quiet=2",
            *("-o", f"Dir::State::status={folder / 'status'}"),
            *("-o", f"Dir::Cache::archives={folder / 'archives'}"),
            *("-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="),
            *("-o", "APT::Sandbox::User=root"),
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=DOWNLOAD_SECONDS,
    )
    if done.returncode:
        raise NodeError(f"apt-get {arguments[0]}: {done.stderr.strip()}")


def reachable(node: Node) -> str:
    """Gives the node a network card behind which nothing but ``PORT`` is; Cockpit's address."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port: int = tried.getsockname()[1]
    forward = {"str": f"tcp:127.0.0.1:{port}-{ADDRESS.partition('/')[0]}:{PORT}"}
    node.monitor.command(
        "netdev_add", type="user", id="browser", restrict=True, ipv6=False, hostfwd=[forward]
    )
    node.monitor.command(
        "device_add", driver="virtio-net-pci", netdev="browser", bus=LOGGED_DISK_BUS
    )
    node.run(NETWORK_UP)
    return f"https://127.0.0.1:{port}"
