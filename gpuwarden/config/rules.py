"""Settings that must fit each other, whatever files they come from."""

from collections.abc import Callable
from dataclasses import dataclass

from gpuwarden.config.formats import format_size
from gpuwarden.config.models import Configuration
from gpuwarden.config.positions import KeyPath


@dataclass(frozen=True)
class Conflict:
    """What was found and what would fit."""

    found: str
    allowed: str


@dataclass(frozen=True)
class Rule:
    """A relation between keys. ``conflict`` gives None where it holds."""

    keys: tuple[KeyPath, ...]
    conflict: Callable[[Configuration], Conflict | None]


def _body_fits(room_key: str) -> Rule:
    def conflict(configuration: Configuration) -> Conflict | None:
        body_bytes = configuration.gateway.body_limit_bytes
        room_bytes = getattr(configuration.gateway, room_key)
        if body_bytes <= room_bytes:
            return None
        return Conflict(
            f"gateway.body_limit_bytes of {format_size(body_bytes)} with gateway.{room_key} of "
            f"{format_size(room_bytes)}, so that the largest request never fits",
            f"gateway.body_limit_bytes up to gateway.{room_key}",
        )

    return Rule((("gateway", "body_limit_bytes"), ("gateway", room_key)), conflict)


RULES = (_body_fits("queue_limit_bytes"), _body_fits("pool_bytes"))
