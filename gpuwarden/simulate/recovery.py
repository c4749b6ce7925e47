# SPDX-License-Identifier: Apache-2.0
"""How soon the administrator's limit was back once nothing stood against it. Pure.

Conditions allow it from the first moment after which the plant, forked from the run and at the
original limit for the rest of the scenario, stays 1 C under alert. Where that holds at one moment,
it holds at each later one: the run never draws more than at the original limit, so its card is
cooler than the fork's. So the moment is found by going backwards.
"""

from gpuwarden.plant.physics import Plant
from gpuwarden.simulate.rehearsal import WORLD_EVERY_SECONDS, Run
from gpuwarden.simulate.world import STEPS_PER_SECOND, World, driver_settings
from gpuwarden.thermal.decision import UNTOUCHED, Judgement

UNDER_ALERT_CELSIUS = 1.0  # contract
LIKE_CELSIUS = 0.001
WORLD_EVERY_STEPS = WORLD_EVERY_SECONDS * STEPS_PER_SECOND


def recovery_seconds(run: Run) -> float | None:
    """Seconds from when conditions allow the original limit until it is set.

    :return: None where the limit was never lowered, or conditions never allow it; where it isn't
        back at the end, the seconds until then, which are too few.
    """
    limited = [_is_limited(each.judgement) for each in run.moments]
    if not any(limited):
        return None
    since_limited = limited[::-1].index(True)
    back = len(limited) - max(0, since_limited - 1)  # from this step on at the original
    allowed = _Forks(run, back).first_allowed()
    return None if allowed is None else max(0, back - allowed) / STEPS_PER_SECOND


def _is_limited(judgement: Judgement) -> bool:
    return judgement.settings.power_limit_watts is not None


class _Forks:
    """What the card would have done at its original limit from a step of the run on.

    Step ``n`` is the state that ``run.moments[n - 1]`` shows, 0 the state at time 0.

    :param back: the step from which on the run is at the original limit, its end at the latest.
    """

    def __init__(self, run: Run, back: int) -> None:
        self._run = run
        self._back = back
        self._steps = len(run.moments)
        self._settings = driver_settings(run.card, UNTOUCHED)

    def first_allowed(self) -> int | None:
        """The first step from which the fork stays cool; None if there is none up to the end."""
        if not self._stays_cool_from(self._back):
            # From its return on the run itself is the fork: it cools down later or never.
            return self._back if self._is_cool(self._run.worlds[-1].plant) else None
        known, reach, low = self._back, WORLD_EVERY_STEPS, -1
        while known > 0:
            earlier = max(0, known - reach)
            if not self._stays_cool_from(earlier):
                low = earlier
                break
            known, reach = earlier, reach * 2
        while known - low > 1:
            middle = (known + low) // 2
            if self._stays_cool_from(middle):
                known = middle
            else:
                low = middle
        return known

    def _stays_cool_from(self, step: int) -> bool:
        world = self._world_at(step)
        for number in range(step, self._steps):
            if not self._is_cool(world.plant):
                return False
            if number > self._back and self._has_joined_run(number, world.plant):
                return True
            world.step_plant(self._settings)
        return self._is_cool(world.plant)

    def _has_joined_run(self, step: int, plant: Plant) -> bool:
        """Both are at the original limit by now: once as warm as each other they stay so."""
        kept, between = divmod(step, WORLD_EVERY_STEPS)
        return between == 0 and _is_like(plant, self._run.worlds[kept].plant)

    def _world_at(self, step: int) -> World:
        run = self._run
        kept = min(step, self._steps - 1) // WORLD_EVERY_STEPS
        world = run.worlds[kept].fork()
        for number in range(kept * WORLD_EVERY_STEPS, step):
            judgement = run.moments[number - 1].judgement if number else run.first
            world.step(judgement.settings)
        return world

    def _is_cool(self, plant: Plant) -> bool:
        limits = self._run.thresholds
        if plant.die_celsius > limits.alert_celsius - UNDER_ALERT_CELSIUS:
            return False
        memory, alert = plant.memory_celsius, limits.memory_alert_celsius
        return memory is None or alert is None or memory <= alert - UNDER_ALERT_CELSIUS


def _is_like(one: Plant, other: Plant) -> bool:
    pairs = (
        (one.sink_celsius, other.sink_celsius),
        (one.die_celsius, other.die_celsius),
        (one.memory_sink_celsius, other.memory_sink_celsius),
        (one.memory_celsius or 0.0, other.memory_celsius or 0.0),
    )
    return all(abs(a - b) < LIKE_CELSIUS for a, b in pairs)
