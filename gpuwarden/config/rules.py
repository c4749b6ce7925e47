# SPDX-License-Identifier: Apache-2.0
"""Settings that must fit each other, whatever files they come from."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise

from gpuwarden.config.formats import format_size
from gpuwarden.config.models import Configuration
from gpuwarden.config.positions import KeyPath
from gpuwarden.config.problems import quoted
from gpuwarden.config.tuning import TuningSettings
from gpuwarden.config.urls import FRONT_DOOR_REFUSAL, Door, leads_to
from gpuwarden.cpulist import format_cpu_list, parse_cpu_list
from gpuwarden.worker.allocator import MEMORY_FRACTION
from gpuwarden.worker.engines.command import options as of_servers
from gpuwarden.worker.engines.transformers import options as of_models
from gpuwarden.worker.settings import RUNTIME_OPTIONS

# What is wrong with the options of an engine, where that can be known from outside.
OPTIONS = {"command": of_servers.problems_of, "transformers": of_models.problems_of}
THRESHOLDS = ("safe_celsius", "alert_celsius", "critical_celsius")  # in this order, each the lower


@dataclass(frozen=True)
class Conflict:
    """What was found and what would fit, and the keys that it is between."""

    keys: tuple[KeyPath, ...]
    found: str
    allowed: str


Rule = Callable[[Configuration], Iterable[Conflict]]


def bodies_fit(configuration: Configuration) -> Iterator[Conflict]:
    """The largest request fits into the queue and into the pool."""
    body_bytes = configuration.gateway.body_limit_bytes
    for room_key in ("queue_limit_bytes", "pool_bytes"):
        room_bytes = getattr(configuration.gateway, room_key)
        if body_bytes > room_bytes:
            yield Conflict(
                (("gateway", "body_limit_bytes"), ("gateway", room_key)),
                f"gateway.body_limit_bytes of {format_size(body_bytes)} with gateway.{room_key} of "
                f"{format_size(room_bytes)}, so that the largest request never fits",
                f"gateway.body_limit_bytes up to gateway.{room_key}",
            )


def thresholds_in_order(configuration: Configuration) -> Iterator[Conflict]:
    """safe < alert < critical, of those that are set: for every card, and for each with its own.

    What isn't set is known by the card alone: its thermal guard holds them against each other.
    """
    general: dict[str, tuple[KeyPath, float]] = {
        key: (("thermal", key), getattr(configuration.thermal, key)) for key in THRESHOLDS
    }
    yield from _in_order(general)
    for uuid, card in configuration.thermal.cards.items():
        own = {
            key: (("thermal", "cards", uuid, key), value)
            for key in THRESHOLDS
            if (value := getattr(card, key)) is not None
        }
        yield from _in_order(general | own, about=set(own))


def _in_order(
    figures: Mapping[str, tuple[KeyPath, float]], about: Iterable[str] = THRESHOLDS
) -> Iterator[Conflict]:
    """Neighbours out of order among the figures that are set, of pairs with one of ``about``."""
    set_keys = [key for key in THRESHOLDS if figures[key][1]]
    for low, high in pairwise(set_keys):
        (low_path, low_value), (high_path, high_value) = figures[low], figures[high]
        if low_value >= high_value and {low, high} & set(about):
            yield Conflict(
                (low_path, high_path),
                f"{low} of {low_value:g} with {high} of {high_value:g}",
                "safe_celsius below alert_celsius below critical_celsius",
            )


def runtime_options_are_numbers(configuration: Configuration) -> Iterator[Conflict]:
    """What the worker's runtime itself reads of the engine's free table is what it can use.

    Workers that share a card have no more than all of it.
    """
    options = configuration.workers.options
    for name, most in RUNTIME_OPTIONS.items():
        value = options.get(name, most)
        if not isinstance(value, int | float) or value is True or not 0 < value <= most:
            key: KeyPath = ("workers", "options", name)
            yield Conflict((key,), quoted(str(value)), f"a number over 0, at most {most}")
            return
    count, share = configuration.workers.workers_per_gpu, options.get("memory_fraction")
    if isinstance(share, int | float) and share * count > 1:
        yield Conflict(
            (("workers", "options", "memory_fraction"), ("workers", "workers_per_gpu")),
            f"memory_fraction of {share:g} with workers_per_gpu of {count}, so that the workers of "
            "a card have more than the card",
            f"memory_fraction up to {1 / count:.2g}",
        )


def models_share_their_card(configuration: Configuration) -> Iterator[Conflict]:
    """Models on one card are told their shares: what each takes by itself is too much for two."""
    workers = configuration.workers
    count = workers.workers_per_gpu
    if workers.engine != "transformers" or count == 1 or "memory_fraction" in workers.options:
        return
    yield Conflict(
        (("workers", "workers_per_gpu"),),
        f"{count} without workers.options.memory_fraction, which is {MEMORY_FRACTION:g} for each",
        f"workers.options.memory_fraction up to {1 / count:.2g}",
    )


def servers_can_be_asked(configuration: Configuration) -> Iterator[Conflict]:
    """A server that the workers are to run has a network."""
    workers = configuration.workers
    if workers.engine == "command" and workers.network == "none":
        found = '"none", where nobody could ask the server'
        yield Conflict((("workers", "network"),), found, '"private" or "host"')


def engines_options_are_right(configuration: Configuration) -> Iterator[Conflict]:
    """A server or a model that the workers are to run is described as a whole.

    Options of other engines are their own, and known to their classes alone.
    """
    workers = configuration.workers
    problems_of = OPTIONS.get(workers.engine)
    for problem in problems_of(workers.options) if problems_of else ():
        if problem.found:
            key: KeyPath = ("workers", "options", problem.name)
            yield Conflict((key,), problem.found, problem.wanted)
        else:
            found = f'"{workers.engine}" without workers.options.{problem.name}'
            yield Conflict((("workers", "engine"),), found, problem.wanted)


RULES: tuple[Rule, ...] = (
    bodies_fit,
    thresholds_in_order,
    runtime_options_are_numbers,
    models_share_their_card,
    servers_can_be_asked,
    engines_options_are_right,
)


def cards_are(cards: Mapping[int, str]) -> Rule:
    """The rule that every card with a table of its own is one of these: index to UUID."""

    def conflicts(configuration: Configuration) -> Iterator[Conflict]:
        here = ", ".join(f"{uuid} (GPU {index})" for index, uuid in sorted(cards.items()))
        for uuid in configuration.thermal.cards:
            if uuid not in cards.values():
                yield Conflict(
                    (("thermal", "cards", uuid),),
                    f"no such card: {uuid}",
                    f"this node has: {here or 'no card'}",
                )

    return conflicts


def housekeeping_is_among(present: frozenset[int], online: frozenset[int]) -> Rule:
    """The rule that the housekeeping CPUs are there, and leave some for workers.

    One that is there and not online now is no mistake of the file's: the plan does without it.
    """
    key: KeyPath = ("placement", "housekeeping_cpus")
    here = format_cpu_list(present)

    def conflicts(configuration: Configuration) -> Iterator[Conflict]:
        text = configuration.placement.housekeeping_cpus
        named = parse_cpu_list(text)
        if absent := named - present:
            yield Conflict(
                (key,),
                f'"{text}", and this node has no CPU {format_cpu_list(absent)}',
                f"CPUs of this node: {here}",
            )
        elif named and not named & online:
            found = f'"{text}", of which no CPU is online'
            yield Conflict((key,), found, f"CPUs that are online: {format_cpu_list(online)}")
        elif named >= online:
            yield Conflict(
                (key,),
                f'"{text}", which is every CPU of this node, so that none is left for workers',
                f"some of {here}, or empty",
            )

    return conflicts


def profiles_are_known(known: Collection[str]) -> Rule:
    """The rule that the host's tuner knows the profiles; the defaults, only where it is to tune."""

    def conflicts(configuration: Configuration) -> Iterator[Conflict]:
        tuning, defaults = configuration.tuning, TuningSettings()
        for key in ("day_profile", "night_profile"):
            profile = getattr(tuning, key)
            is_wanted = tuning.enabled or profile != getattr(defaults, key)
            if is_wanted and profile not in known:
                close = get_close_matches(profile, sorted(known), n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                yield Conflict(
                    (("tuning", key),),
                    f"{quoted(profile)}, which is no profile that tuned knows{hint}",
                    "one that `tuned-adm list` names",
                )

    return conflicts


def front_door_is_at(doors: Iterable[Door]) -> Rule:
    """The rule that no hook posts to one of these addresses: our own front door's."""
    own = tuple(doors)

    def conflicts(configuration: Configuration) -> Iterator[Conflict]:
        for number, hook in enumerate(configuration.thermal.hooks):
            if hook.post and any(leads_to(hook.post, door) for door in own):
                yield Conflict(
                    (("thermal", "hooks", number, "post"),),
                    f"{quoted(hook.post)}; {FRONT_DOOR_REFUSAL}",
                    "the URL of another program",
                )

    return conflicts
