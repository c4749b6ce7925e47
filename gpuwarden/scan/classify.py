# SPDX-License-Identifier: Apache-2.0
"""Whose a process is that holds memory of a card. Pure; the first rule that fits decides.

The order matters: what can't be helped by a signal comes before what may get one, and only a
process that is certainly a dead worker's may end up where the guard acts by itself.
"""

import re
from collections.abc import Callable

from gpuwarden import names
from gpuwarden.control.states import Holder, HolderClass
from gpuwarden.nvml.processes import COMPUTE, MPS
from gpuwarden.scan.evidence import GONE, ZOMBIE, Customs, Evidence, Sight

COMM_LIMIT = 15  # the kernel's TASK_COMM_LEN, less the NUL
MPS_DAEMON = "nvidia-cuda-mps"  # -control and -server: cut after 15 characters they are the same
DESKTOP_COMMANDS = frozenset(
    {
        *("Xorg", "X", "Xwayland", "weston", "sway", "mutter", "cosmic-comp"),
        *("gnome-shell", "gnome-session-b", "gnome-remote-de"),
        *("kwin_x11", "kwin_wayland", "plasmashell", "xfwm4", "cinnamon"),
        *("gdm-x-session", "gdm-wayland-ses", "sddm", "sddm-greeter", "lightdm"),
    }
)
DESKTOP_UNITS = ("gdm", "gdm3", "sddm", "lightdm", "display-manager")
# Docker, Podman, containerd, CRI-O, Kubernetes, LXC and systemd's own, by where they put processes.
_CONTAINER = re.compile(
    r"/(docker|libpod|crio|cri-containerd|nerdctl|buildkit|lxc\.payload)[-./]"
    r"|/kubepods|/machine\.slice/|/lxc/"
)
_UNIT = re.compile(r"\.(service|scope)$")
_WORKER = re.compile(
    rf"/{re.escape(names.SERVICE_SLICE)}/{re.escape(names.WORKERS_SLICE)}/"
    r"[^/]+/(?P<unit>medgemma-worker@(?P<number>\d+)\.service)(/|$)"
)

Rule = Callable[[Evidence, Sight, Customs], bool]


def unit_of(control_group: str) -> str:
    """The system's unit that a control group is in; empty where it is in none."""
    parts = control_group.split("/")
    return next((part for part in parts if _UNIT.search(part)), "")


def worker_of(control_group: str) -> int | None:
    """The worker whose unit a control group is of."""
    found = _WORKER.match(control_group)
    return int(found["number"]) if found else None


def is_daemon_of_ours(control_group: str) -> bool:
    """Whether it is one of the daemons beside the workers: they watch cards and hold nothing."""
    return control_group.startswith(f"/{names.SERVICE_SLICE}/{names.CONTROL_SLICE}/")


def classify(evidence: Evidence, sight: Sight, customs: Customs) -> HolderClass:
    """Whose it is."""
    fits = (name for name, rule in RULES if rule(evidence, sight, customs))
    return next(fits, "foreign" if sight.listed else "hidden")


def holder(evidence: Evidence, sight: Sight, customs: Customs) -> Holder:
    """The process as it is published."""
    number = worker_of(evidence.control_group)
    return Holder(
        pid=evidence.pid,
        start_time_ticks=evidence.start_time_ticks,
        holder_class=classify(evidence, sight, customs),
        command=evidence.command,
        uid=evidence.uid,
        unit=unit_of(evidence.control_group),
        control_group=evidence.control_group,
        worker=evidence.tag if number is None else number,
        vram_bytes=sight.vram_bytes,
        listed=sight.listed,
        mappings=sight.mappings,
    )


def _defunct(evidence: Evidence, sight: Sight, customs: Customs) -> bool:
    """Nothing left to signal: who inherited its descriptors, or its last thread, holds on."""
    return evidence.state in (GONE, ZOMBIE)


def _ours(evidence: Evidence, sight: Sight, customs: Customs) -> bool:
    return worker_of(evidence.control_group) is not None and evidence.unit_runs


def _uninterruptible(evidence: Evidence, sight: Sight, customs: Customs) -> bool:
    return evidence.stuck


def _mps(evidence: Evidence, sight: Sight, customs: Customs) -> bool:
    """The daemons, and their clients: one that is ended in the midst of work can take all down."""
    return evidence.command.startswith(MPS_DAEMON) or MPS in sight.kinds


def _monitoring(evidence: Evidence, sight: Sight, customs: Customs) -> bool:
    return evidence.command in customs.monitoring


def _container(evidence: Evidence, sight: Sight, customs: Customs) -> bool:
    if worker_of(evidence.control_group) is not None:
        return False
    return bool(_CONTAINER.search(evidence.control_group)) or evidence.foreign_namespace


def _ours_dead(evidence: Evidence, sight: Sight, customs: Customs) -> bool:
    """In a worker's unit that is down; or tagged as a worker's, of a worker's user, and elsewhere.

    The tag alone proves nothing: an administrator may have copied a worker's environment.
    """
    if worker_of(evidence.control_group) is not None:
        return True  # a unit that runs has been asked for before
    return evidence.tag is not None and evidence.uid == customs.worker_uid


def _desktop(evidence: Evidence, sight: Sight, customs: Customs) -> bool:
    if sight.listed and COMPUTE not in sight.kinds:
        return True
    unit = unit_of(evidence.control_group).removesuffix(".service")
    return evidence.command in DESKTOP_COMMANDS or unit in DESKTOP_UNITS


RULES: tuple[tuple[HolderClass, Rule], ...] = (
    ("defunct", _defunct),
    ("ours", _ours),
    ("uninterruptible", _uninterruptible),
    ("mps", _mps),
    ("monitoring", _monitoring),
    ("container", _container),
    ("ours-dead", _ours_dead),
    ("desktop", _desktop),
)
