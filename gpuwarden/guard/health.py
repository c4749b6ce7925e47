# SPDX-License-Identifier: Apache-2.0
"""Whether a worker that runs is well, and when to start it again: pure, over what was seen.

What is unknown ends nobody: it begins each count anew.
"""

from dataclasses import dataclass, replace

from gpuwarden.config.health import HealthSettings
from gpuwarden.guard.findings import Ailment
from gpuwarden.guard.presence import Presence
from gpuwarden.values import WorkerState

GHOST_SCANS = 3  # design.md, contract: in a row, all complete
FAILED_REQUESTS = 3  # in a row: a context that an error has killed stands in the card's list still
SILENT_SECONDS = 15.0  # heartbeats come each 2 s; a library may hold the interpreter for some
OVER_MEMORY_SECONDS = 10.0  # a peak that is gone by then was one of a batch
ASK_AGAIN_SECONDS = 10.0  # a worker that was busy, or said nothing
BELIEVED_SECONDS = 60.0  # a card that answered, though nobody of the worker is in its list


@dataclass(frozen=True, slots=True)
class Vitals:
    """What is seen of one worker at one look; None is unknown.

    :ivar life: its main process and when that was started.
    :ivar serves: it is up, connected, and neither loads nor drains.
    :ivar is_stalled: a batch is past its time limit and has not ended.
    :ivar silent_seconds: since anything was heard of it.
    :ivar presence: what the last scan of its card says.
    :ivar requests: answered so far, ``failures`` of them with an error that is not the caller's.
    :ivar memory_bytes: main memory that can't be taken back from it.
    :ivar short_of_vram: why the front door would have it restarted at the next idle moment.
    """

    life: tuple[int, int]
    serves: bool
    is_stalled: bool = False
    silent_seconds: float | None = None
    presence: Presence | None = None
    requests: int = 0
    failures: int = 0
    memory_bytes: int | None = None
    memory_soft_limit_bytes: int | None = None
    vram_reserved_bytes: int | None = None
    vram_fragmentation: float | None = None
    short_of_vram: str = ""


@dataclass(frozen=True, slots=True)
class Watch:
    """What is remembered of one life of a worker.

    :ivar absent_scans: complete scans in a row without any of its processes in the card's list.
    :ivar failed_requests: in a row.
    :ivar ask_after_seconds: the canary isn't asked before.
    :ivar lost: what the canary of a worker that no scan lists said of a card that doesn't answer;
        empty: nothing of the kind.
    :ivar refused: the same of one that is listed, and all of whose requests fail.
    :ivar stuck_since_seconds: None where it is not stuck.
    :ivar was_within_memory: it has been below its soft limit.
    """

    life: tuple[int, int]
    scan: tuple[int, int] | None = None
    absent_scans: int = 0
    ask_after_seconds: float = 0.0
    lost: str = ""
    requests: int = 0
    failures: int = 0
    failed_requests: int = 0
    refused: str = ""
    stuck: str = ""
    stuck_since_seconds: float | None = None
    was_within_memory: bool = False
    over_memory: str = ""
    over_memory_since_seconds: float | None = None
    fragmented: str = ""
    fragmented_since_seconds: float | None = None
    short_of_vram: str = ""

    @property
    def is_suspect(self) -> bool:
        """Whether the canary is to be asked: its card may be gone for it."""
        return (self.is_absent or self.is_failing) and not (self.lost or self.refused)

    @property
    def is_absent(self) -> bool:
        """Whether no scan lists it any more."""
        return self.absent_scans >= GHOST_SCANS

    @property
    def is_failing(self) -> bool:
        """Whether nothing that it was asked lately has worked."""
        return self.failed_requests >= FAILED_REQUESTS


# --- looking


def next_watch(
    watch: Watch | None, seen: Vitals, now_seconds: float, settings: HealthSettings
) -> Watch:
    """What is remembered after a look. A new life, or one that doesn't serve, begins anew."""
    if watch is None or watch.life != seen.life or not seen.serves:
        watch = Watch(seen.life, requests=seen.requests, failures=seen.failures)
    if not seen.serves:
        return watch
    watch = _look_for_it_on_the_card(watch, seen.presence)
    watch = _look_whether_it_works(watch, seen)
    watch = _look_whether_it_moves(watch, seen, now_seconds)
    watch = _look_at_memory(watch, seen, now_seconds)
    watch = replace(watch, short_of_vram=seen.short_of_vram)
    return _look_at_fragmentation(watch, seen, now_seconds, settings)


def _look_for_it_on_the_card(watch: Watch, presence: Presence | None) -> Watch:
    if presence is None or presence.listed:
        scan = presence.scan if presence else None
        return replace(watch, scan=scan, absent_scans=0, lost="")
    if presence.scan == watch.scan:
        return watch
    before = (presence.scan[0], presence.scan[1] - 1)
    in_a_row = watch.scan == before
    absent = watch.absent_scans + 1 if in_a_row else 1
    return replace(
        watch, scan=presence.scan, absent_scans=absent, lost=watch.lost if in_a_row else ""
    )


def _look_whether_it_works(watch: Watch, seen: Vitals) -> Watch:
    answered, failed = seen.requests - watch.requests, seen.failures - watch.failures
    row, refused = watch.failed_requests + failed, watch.refused
    if failed < answered or answered < 0:  # one has worked, or the front door counts anew
        row, refused = 0, ""
    return replace(
        watch,
        requests=seen.requests,
        failures=seen.failures,
        failed_requests=row,
        refused=refused,
    )


def _look_whether_it_moves(watch: Watch, seen: Vitals, now_seconds: float) -> Watch:
    why = ""
    if seen.is_stalled:
        why = "a batch is past its time limit and has not ended"
    elif seen.silent_seconds is not None and seen.silent_seconds >= SILENT_SECONDS:
        why = f"nothing has been heard of it for over {SILENT_SECONDS:.0f} s"
    return replace(
        watch, stuck=why, stuck_since_seconds=_since(watch.stuck_since_seconds, why, now_seconds)
    )


def _look_at_memory(watch: Watch, seen: Vitals, now_seconds: float) -> Watch:
    used, limit = seen.memory_bytes, seen.memory_soft_limit_bytes
    if used is None or limit is None:
        return replace(watch, over_memory="", over_memory_since_seconds=None)
    why = ""
    if used > limit:
        why = f"it holds {used >> 20} MiB of memory, over its soft limit of {limit >> 20} MiB"
    return replace(
        watch,
        was_within_memory=watch.was_within_memory or not why,
        over_memory=why,
        over_memory_since_seconds=_since(watch.over_memory_since_seconds, why, now_seconds),
    )


def _look_at_fragmentation(
    watch: Watch, seen: Vitals, now_seconds: float, settings: HealthSettings
) -> Watch:
    reserved, unused = seen.vram_reserved_bytes, seen.vram_fragmentation
    why = ""
    if reserved is None or unused is None or reserved < settings.fragmentation_at_least_bytes:
        pass
    elif unused > settings.fragmentation_limit:
        why = f"{unused:.0%} of its {reserved >> 20} MiB on the card are reserved and not used"
    return replace(
        watch,
        fragmented=why,
        fragmented_since_seconds=_since(watch.fragmented_since_seconds, why, now_seconds),
    )


def _since(before: float | None, why: str, now_seconds: float) -> float | None:
    if not why:
        return None
    return now_seconds if before is None else before


# --- the canary


def wants_canary(watch: Watch, now_seconds: float) -> bool:
    """Whether its worker is to ask the card something now."""
    return watch.is_suspect and now_seconds >= watch.ask_after_seconds


def after_canary(watch: Watch, pid: int, outcome: str, detail: str, now_seconds: float) -> Watch:
    """What is remembered after an answer: only a card that refuses the same process proves a loss.

    :param outcome: a word of ``worker/canary.py``; any other one is unknown.
    """
    if pid != watch.life[0] or not watch.is_suspect:
        return watch
    if outcome == "lost":
        why = detail or "the card does not answer"
        return replace(watch, lost=why) if watch.is_absent else replace(watch, refused=why)
    if outcome in ("answered", "unused"):
        after_seconds = now_seconds + BELIEVED_SECONDS
        return replace(watch, absent_scans=0, failed_requests=0, ask_after_seconds=after_seconds)
    return replace(watch, ask_after_seconds=now_seconds + ASK_AGAIN_SECONDS)


# --- what follows


def ailment(watch: Watch) -> Ailment | None:
    """What ails it; None where nothing that its state would tell."""
    if watch.lost:
        return Ailment(
            WorkerState.GHOST,
            f"none of its processes is on the card any more, and the card is gone for it: "
            f"{watch.lost}",
        )
    return Ailment(WorkerState.STUCK, watch.stuck) if watch.stuck else None


def restart_reason(watch: Watch, now_seconds: float, settings: HealthSettings) -> str:
    """Why it is to be restarted now, whatever it does; empty where it isn't."""
    if watch.refused:
        return f"card lost: {watch.refused}"
    ill = ailment(watch)
    if ill is None:
        return ""
    if ill.state is WorkerState.STUCK:
        since = watch.stuck_since_seconds
        if since is None or now_seconds - since < settings.stuck_grace_seconds:
            return ""
    return f"{ill.state}: {ill.reason}"


def recycle_reason(watch: Watch, now_seconds: float, settings: HealthSettings) -> str:
    """Why it is to be restarted at the next idle moment; empty where it isn't.

    One that has been over its soft limit for all its life needs more: a restart wouldn't help.
    """
    over, long = watch.over_memory_since_seconds, watch.fragmented_since_seconds
    if over is not None and watch.was_within_memory and now_seconds - over >= OVER_MEMORY_SECONDS:
        return f"memory: {watch.over_memory}"
    if long is not None and now_seconds - long >= settings.fragmentation_seconds:
        return f"fragmentation: {watch.fragmented}"
    return f"card memory: {watch.short_of_vram}" if watch.short_of_vram else ""


def needs_memory(watch: Watch, now_seconds: float) -> str:
    """What to say of a worker that has been over its soft limit for all its life; else empty."""
    since = watch.over_memory_since_seconds
    lasts = since is not None and now_seconds - since >= OVER_MEMORY_SECONDS
    return watch.over_memory if lasts and not watch.was_within_memory else ""
