# SPDX-License-Identifier: Apache-2.0
"""Whatever is killed, whenever: ours is never taken for the original, and it comes back."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwarden.thermal.decision import UNTOUCHED, Settings
from tests.unit.thermal.model_card import DEFAULT_WATTS, Guard, Killed, World

# fsync costs nothing in memory; that it is called is another test's.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
# Odd multiples of 10 W are the administrator's, even ones the policy's: what somebody sets to just
# the value that the guard has set (to within what a board may round) nobody can tell apart.
# The policy may well set the driver's default, which is what a reboot brings back.
administrators_watts = st.integers(5, 21).map(lambda n: 20 * n + 10).filter(DEFAULT_WATTS.__ne__)
policys_watts = st.none() | st.integers(5, 22).map(lambda n: 20.0 * n) | st.just(DEFAULT_WATTS)
wanted = st.builds(
    Settings,
    power_limit_watts=policys_watts,
    sm_clock_mhz=st.none() | st.integers(300, 1800),
    memory_clock_mhz=st.none() | st.just(2000),
)
# How many steps after the action begins the guard is killed; None: it isn't.
moments = st.none() | st.integers(1, 40)
actions = st.one_of(
    st.tuples(st.just("apply"), wanted, moments),
    st.tuples(st.just("outside"), administrators_watts, st.none()),
    st.tuples(
        st.just("outside-meanwhile"), st.tuples(wanted, administrators_watts), st.integers(1, 9)
    ),
    st.tuples(st.just("kill"), st.none(), st.none()),
    st.tuples(st.just("stop"), st.none(), moments),
    st.tuples(st.just("reload"), st.none(), st.none()),
    st.tuples(st.just("reboot"), st.none(), st.none()),
    st.tuples(st.just("disk-full"), st.booleans(), st.none()),
    st.tuples(st.just("tear"), st.booleans(), st.none()),
    st.tuples(st.just("check"), st.none(), st.none()),
)
starts = st.lists(moments, max_size=4)


class Story:
    """A guard that is killed and started again, as it happens."""

    def __init__(self, world: World, starts: list[int | None]) -> None:
        self.world = world
        self.starts = iter(starts)
        self.guard = self.start()

    def start(self) -> Guard:
        """A new life; it may be killed at its own beginning, a few times."""
        while True:
            try:
                return self.until(next(self.starts, None), lambda: Guard(self.world))
            except Killed:
                continue

    def until(self, moment: int | None, act: Callable[[], Guard]) -> Guard:
        """Do it; killed so many steps later."""
        if moment is not None:
            self.world.at_step[self.world.steps + moment] = self.world.kill
        try:
            return act()
        finally:
            self.world.at_step.clear()

    def act(self, kind: str, what: object, moment: int | None) -> None:
        try:
            self.guard = self.until(
                moment if kind in ("apply", "stop") else None, self.doing(kind, what, moment)
            )
        except Killed:
            self.guard = self.start()

    def doing(self, kind: str, what: object, moment: int | None) -> Callable[[], Guard]:
        return lambda: self.do(kind, what, moment)

    def do(self, kind: str, what: object, moment: int | None) -> Guard:
        world, guard = self.world, self.guard
        match kind, what:
            case "apply", Settings() as wish:
                guard.actuators.apply(wish)
            case "outside", int(watts):
                world.set_from_outside(watts)
            case "outside-meanwhile", (Settings() as wish, int(watts)):
                # Only before the guard's last look at the card: between that and its write, some
                # microseconds, nobody can see it.
                world.at_step[world.steps + (moment or 1)] = lambda: (
                    world.set_from_outside(watts)
                    if "set_power_limit" not in guard.card.calls[-1:]
                    else None
                )
                guard.actuators.apply(wish)
            case "kill", _:
                raise Killed
            case "stop", _:
                guard.actuators.check()
                assert guard.actuators.restore()
                assert world.limit_milliwatts == world.wanted_milliwatts
                assert (world.sm_lock, world.memory_lock) == (None, None)
                assert not guard.store.disk_file.exists()
                assert not guard.store.run_file.exists()
                return self.start()
            case "reload", _:
                if world.limit_milliwatts != DEFAULT_WATTS * 1000 or world.load_is_seen:
                    world.reload_driver()  # unseen, it could not be told from nothing at all
                guard.open()
            case "disk-full", bool(is_full):
                world.disk_is_full = is_full
            case "tear", bool(is_disks) if is_disks or not world.disk_is_full:
                world.tear(guard.store.disk_file if is_disks else guard.store.run_file)
                return self.start()
            case "reboot", _:
                world.reboot()
                return self.start()
            case _:
                guard.actuators.check()
        return guard


@settings(max_examples=750, deadline=None)
@given(
    rounding=st.sampled_from([1, 100, 1000, 2000]),
    load_is_seen=st.booleans(),
    starts=starts,
    actions=st.lists(actions, max_size=12),
)
def test_ours_is_never_the_original_and_the_original_comes_back(
    rounding: int,
    load_is_seen: bool,
    starts: list[int | None],
    actions: list[tuple[str, object, int | None]],
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        world = World(Path(folder), rounding)
        world.load_is_seen = load_is_seen
        story = Story(world, starts)
        for kind, what, moment in actions:
            story.act(kind, what, moment)  # the card itself refuses what is above the wanted limit
            story.guard.actuators.check()
            assert story.guard.original_milliwatts == world.wanted_milliwatts
        story.guard.actuators.apply(UNTOUCHED)
        assert world.limit_milliwatts == world.wanted_milliwatts
        assert (world.sm_lock, world.memory_lock) == (None, None)
        story.act("stop", None, None)
