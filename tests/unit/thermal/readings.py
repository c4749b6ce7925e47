"""What a card may be seen to do."""

from gpuwarden.nvml.card import Condition, Sample
from gpuwarden.nvml.limits import CardLimits
from gpuwarden.nvml.vocabulary import PowerKind
from gpuwarden.thermal.observation import CardName, NotSeen, Seen, Trouble

CARD = CardName("GPU-1", "NVIDIA H200", "0000:3b:00.0", 1)
H200 = CardLimits(87, 89, 95, 95)


def seen(celsius: float, memory: float | None = 40.0, limits: CardLimits = H200) -> Seen:
    sample = Sample(celsius, memory, 300.0, PowerKind.INSTANTANEOUS, 0.9, ("idle",))
    return Seen(CARD, sample, Condition(350.0, 1, 2, "none"), limits)


def not_seen(trouble: Trouble, text: str = "it is broken") -> NotSeen:
    return NotSeen(CARD, trouble, text)
