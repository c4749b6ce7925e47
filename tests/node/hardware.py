# SPDX-License-Identifier: Apache-2.0
"""What the node is made of, as QEMU arguments."""

from dataclasses import dataclass
from pathlib import Path

from tests.node import agent

# Plain ``-cpu max`` double-faults Debian 13's kernel at a cmpxchg16b in QEMU 7.2's emulation (one
# boot in four); without the feature, 28 boots of 28 were good.
#
# A processor of Intel's family, for the kernel trusts their time stamp counter: with ``max`` each
# look at the clock was a port's, under QEMU's one lock (``python3 -c pass`` took twice as long).
# Room for 1 GiB of translated code: 256 MiB were full twice while the service started, and then all
# of it is thrown away and translated again.
EMULATION = ("-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "Nehalem,-cx16")
# QEMU 7.2 translates code anew for each address that it is found at: with each program at the same
# one, what one process ran the next has ready (/bin/true: half the time).
EMULATION_KERNEL_LINE = "norandmaps tsc=reliable"
KVM = ("-accel", "kvm", "-cpu", "host")
PORT_NAME = Path(agent.PORT).name
LOGGED_DISK_BUS = "spare0"


@dataclass(frozen=True)
class Card:
    """A PCI device that stands for a GPU.

    With a NUMA node it sits behind a PCI expander bridge of that node, on bus ``bus_number`` + 1,
    device 0; without (-1 in sysfs) on the main bus as device ``bus_number``.
    """

    bus_number: int
    numa_node: int | None

    @property
    def address(self) -> str:
        """The PCI address, as sysfs and NVML spell it."""
        if self.numa_node is None:
            return f"0000:00:{self.bus_number:02x}.0"
        return f"0000:{self.bus_number + 1:02x}:00.0"

    def arguments(self, index: int) -> list[str]:
        """QEMU's arguments for card ``index``."""
        if self.numa_node is None:
            return ["-device", f"pci-testdev,bus=pcie.0,addr={self.bus_number:#x}"]
        bridge = f"pxb{index}"
        slot = 8 + index
        return [
            *(
                "-device",
                f"pxb-pcie,id={bridge},bus=pcie.0,bus_nr={self.bus_number},"
                f"numa_node={self.numa_node}",
            ),
            *("-device", f"pcie-root-port,id=card{index},bus={bridge},chassis={slot},slot={slot}"),
            *("-device", f"pci-testdev,bus=card{index}"),
        ]


TWO_CARDS = (Card(0x40, 0), Card(0x80, 1))


@dataclass(frozen=True)
class Hardware:
    """Processors, memory (spread evenly over the NUMA nodes) and cards of a node."""

    processors: int = 4
    numa_nodes: int = 2
    memory_mebibytes: int = 1536
    cards: tuple[Card, ...] = TWO_CARDS

    def __post_init__(self) -> None:
        for amount in (self.processors, self.memory_mebibytes):
            if self.numa_nodes < 1 or amount % self.numa_nodes:
                raise ValueError(
                    f"{self.processors} processors and {self.memory_mebibytes} MiB must divide "
                    f"evenly over {self.numa_nodes} NUMA nodes (at least 1)"
                )

    def arguments(self, kvm: bool, memory: "Memory") -> list[str]:
        """QEMU's arguments for everything but disks and channels."""
        per_node = self.processors // self.numa_nodes
        node_mebibytes = self.memory_mebibytes // self.numa_nodes
        arguments = [
            *("-M", "q35,hpet=off,sata=off,smbus=off,vmport=off"),
            *(KVM if kvm else EMULATION),
            *("-m", f"{self.memory_mebibytes}M"),
            *("-smp", f"{self.processors},sockets={self.numa_nodes},cores={per_node},threads=1"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-object", "rng-random,filename=/dev/urandom,id=random"),
            *("-device", "virtio-rng-pci,rng=random,bus=pcie.0"),
            *("-device", f"pcie-root-port,id={LOGGED_DISK_BUS},bus=pcie.0,chassis=1,slot=1"),
        ]
        for node in range(self.numa_nodes):
            first = node * per_node
            cpus = f"{first}-{first + per_node - 1}"
            arguments += [
                *("-object", memory.backend(node, node_mebibytes)),
                *("-numa", f"node,nodeid={node},memdev=memory{node},cpus={cpus}"),
            ]
        for index, card in enumerate(self.cards):
            arguments += card.arguments(index)
        return arguments


@dataclass(frozen=True)
class Memory:
    """Where the guest's memory lives.

    ``directory`` None: anonymous.  Else one file per NUMA node there: ``shared`` while a snapshot
    is being made (the files are the snapshot), private copies on write when one is restored, so
    that nothing is read that the guest does not touch.
    """

    directory: Path | None = None
    shared: bool = False

    def backend(self, node: int, mebibytes: int) -> str:
        """The ``-object`` argument of one NUMA node's memory."""
        if self.directory is None:
            return f"memory-backend-ram,id=memory{node},size={mebibytes}M"
        share = "on" if self.shared else "off"
        path = self.directory / f"memory{node}"
        return (
            f"memory-backend-file,id=memory{node},size={mebibytes}M,mem-path={path},share={share}"
        )
