# SPDX-License-Identifier: Apache-2.0
"""What was seen, as it is published: the snapshot, and one line for systemctl. Pure."""

from collections import Counter

from gpuwarden.control.states import ScanData
from gpuwarden.scan.outcome import NotSeen, Seen

GIB = 2**30


def seen_data(gpu_index: int, found: Seen | NotSeen, scans: int) -> ScanData:
    """The state after a look at the card."""
    if isinstance(found, NotSeen):
        return blind_data(gpu_index, found.uuid, found.problem, scans)
    return ScanData(
        gpu_index=gpu_index,
        gpu_uuid=found.uuid,
        state="scanning",
        problem=found.problem,
        scans=scans,
        holders=list(found.holders),
        vram_used_bytes=found.used_bytes,
        vram_total_bytes=found.total_bytes,
        unexplained_bytes=found.unexplained_bytes,
    )


def blind_data(gpu_index: int, uuid: str, problem: str, scans: int) -> ScanData:
    """The state of a card that can't be seen: nothing of what was seen before is claimed."""
    return ScanData(gpu_index=gpu_index, gpu_uuid=uuid, state="blind", problem=problem, scans=scans)


def released_data(gpu_index: int, uuid: str, until: str, scans: int) -> ScanData:
    """The state of a card that was let go of."""
    return ScanData(
        gpu_index=gpu_index,
        gpu_uuid=uuid,
        state="released",
        problem=f"released until {until}",
        scans=scans,
    )


def status_line(data: ScanData, simulated: bool) -> str:
    """The state in one line: ``GPU 0: 1.5 of 40.0 GiB in use, by 1 ours``."""
    head = f"{'SIMULATED ' if simulated else ''}GPU {data.gpu_index}"
    if data.state != "scanning":
        return f"{head} {data.state}: {data.problem}" if data.problem else f"{head} {data.state}"
    classes = Counter(each.holder_class for each in data.holders)
    held = ", ".join(f"{count} {name}" for name, count in sorted(classes.items())) or "nobody"
    parts = [f"{_gib(data.vram_used_bytes)} of {_gib(data.vram_total_bytes)} GiB in use, by {held}"]
    if data.unexplained_bytes:
        parts.append(f"{_gib(data.unexplained_bytes)} GiB unexplained")
    if data.problem:
        parts.append(data.problem)
    return f"{head}: {'; '.join(parts)}"


def _gib(size: int | None) -> str:
    return "?" if size is None else f"{size / GIB:.1f}"
