"""What the kernel says of a worker: its processes and the CPUs they may use."""

from pathlib import Path

from gpuwarden.names import SERVICE_SLICE, WORKERS_SLICE

CGROUP_ROOT = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def process_count(control_group: str, root: Path = CGROUP_ROOT) -> int:
    """Processes in a unit's control group and below; 0 where the group is gone."""
    if not control_group:
        return 0
    folder = root / control_group.lstrip("/")
    return sum(
        len(_lines(file)) for file in (folder / "cgroup.procs", *folder.glob("*/cgroup.procs"))
    )


def running_workers(root: Path = CGROUP_ROOT) -> set[int]:
    """The numbers of all workers that have a process, planned or not."""
    groups = (root / SERVICE_SLICE / WORKERS_SLICE).glob("*/medgemma-worker@*.service/cgroup.procs")
    names = (file.parent.name for file in groups if _lines(file))
    found = (name.removesuffix(".service").partition("@")[2] for name in names)
    return {int(number) for number in found if number.isdigit()}


def allowed_cpus(pid: int, root: Path = PROC) -> str:
    """The kernel's list of CPUs that a process may run on; empty where it is gone."""
    if not pid:
        return ""
    for line in _lines(root / str(pid) / "status"):
        name, _, value = line.partition(":")
        if name == "Cpus_allowed_list":
            return value.strip()
    return ""


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return []
