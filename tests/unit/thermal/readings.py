# SPDX-License-Identifier: Apache-2.0
"""What a card may be seen to do."""

from gpuwarden.nvml.card import Condition, Sample
from gpuwarden.nvml.limits import CardLimits
from gpuwarden.nvml.vocabulary import PowerKind
from gpuwarden.thermal.decision import Authority, Judgement, Settings
from gpuwarden.thermal.observation import CardName, NotSeen, Seen, Trouble
from gpuwarden.thermal.thresholds import Thresholds, thresholds_of
from gpuwarden.thermal.view import View, judged, take
from gpuwarden.values import ThermalState

CARD = CardName("GPU-1", "NVIDIA H200", "0000:3b:00.0", 1)
H200 = CardLimits(87, 89, 95, 95)
THRESHOLDS: Thresholds = thresholds_of(H200)
AUTHORITY = Authority(
    original_watts=350.0, minimum_watts=100.0, sm_clocks_mhz=(300, 1800), max_batch=8
)

FRESH = View(0, 0.0, 0)  # nothing known yet


def seen(
    celsius: float,
    memory: float | None = 40.0,
    limits: CardLimits = H200,
    reasons: tuple[str, ...] = ("idle",),
) -> Seen:
    sample = Sample(celsius, memory, 300.0, PowerKind.INSTANTANEOUS, 0.9, reasons)
    return Seen(CARD, sample, Condition(350.0, 1, 2, "none"), limits)


def not_seen(trouble: Trouble, text: str = "it is broken") -> NotSeen:
    return NotSeen(CARD, trouble, text)


def judgement(state: ThermalState, reason: str = "", **settings: float | bool | None) -> Judgement:
    return Judgement(state, reason, Settings(**settings))  # type: ignore[arg-type]


def view_of(celsius: float, state: ThermalState = ThermalState.NORMAL, reason: str = "") -> View:
    """A card that was seen a second after the start, and judged so."""
    return judged(take(View(0, 0.0, 0), seen(celsius), 1.0), judgement(state, reason), 1)
