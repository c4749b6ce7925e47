# SPDX-License-Identifier: Apache-2.0
"""[thermal]: how cards are watched and cooled, what is different for some, and whom to tell.

A threshold of 0 is the card's own (see ``gpuwarden.thermal.thresholds``).
"""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, model_validator

from gpuwarden.config.kinds import (
    SETTABLE_CELSIUS,
    SETTABLE_MHZ,
    CardUuid,
    Celsius,
    ClockMhz,
    Command,
    PostUrl,
    StateNames,
    list_to_tuple,
)
from gpuwarden.config.settings import Section, setting

Value = TypeVar("Value")
PolicyName = Literal["regulated", "stepped"]

_CELSIUS = f"0, or a number from {SETTABLE_CELSIUS[0]} to {SETTABLE_CELSIUS[1]} (degrees Celsius)"
_MHZ = f"0, or a whole number from {SETTABLE_MHZ[0]} to {SETTABLE_MHZ[1]} (MHz)"
_POLICY = '"regulated" or "stepped"'
_GENERAL = "as in [thermal]"


class HookSettings(Section):
    """Tells another program when a card enters one of some states: by a POST or by a command."""

    on: StateNames = setting(
        ...,
        description="The states that it is for. It runs when a card enters one of them.",
        why="there is none: a hook without a state would never run",
        allowed='a list of "normal", "alert", "critical", "recovering", "blind", "released", '
        '"lost"',
    )
    post: PostUrl | None = setting(
        None,
        description="Where to POST what happened, as JSON. Redirects and proxies are not followed.",
        why="a hook has either post or command",
        allowed="an http or https URL of another program: "
        '"http://127.0.0.1:7861/api/thermal_mode?mode=eco"',
    )
    command: Command | None = setting(
        None,
        description="A program and its arguments. What happened is in its environment. It has no "
        "privileges, no devices and no shell.",
        why="a hook has either post or command",
        allowed='a list that begins with an absolute path: ["/usr/local/bin/page-me", "gpu"]',
    )
    timeout_seconds: float = setting(
        5.0,
        description="Time for the answer or for the program's end. Then it has failed.",
        why="a program on the same node answers in milliseconds",
        unit="seconds",
        at_least=0.1,
        at_most=60,  # TimeoutStartSec=75 of medgemma-hook@.service, less its own start
    )

    @model_validator(mode="after")
    def _does_one_thing(self) -> "HookSettings":
        if self.post is None and self.command is None:
            raise ValueError("it has neither post nor command, so it would do nothing")
        if self.post is not None and self.command is not None:
            raise ValueError("it has both post and command: write two hooks")
        return self


class CardSettings(Section):
    """What is different for one card, named by its UUID (`nvidia-smi -L` lists them)."""

    alert_celsius: Celsius | None = setting(
        None, description="Where cooling of this card begins.", why=_GENERAL, allowed=_CELSIUS
    )
    critical_celsius: Celsius | None = setting(
        None,
        description="Where this card is cooled by all means.",
        why=_GENERAL,
        allowed=_CELSIUS,
    )
    safe_celsius: Celsius | None = setting(
        None, description="Where this card counts as cool again.", why=_GENERAL, allowed=_CELSIUS
    )
    policy: PolicyName | None = setting(
        None, description="How this card is cooled.", why=_GENERAL, allowed=_POLICY
    )
    sm_clock_baseline_mhz: ClockMhz | None = setting(
        None, description="Your own lock of this card's SM clock.", why=_GENERAL, allowed=_MHZ
    )


@dataclass(frozen=True, slots=True)
class CardWishes:
    """What is configured for one card, its own table and the general values taken together.

    :ivar alert_celsius: 0: as the card says; the other thresholds likewise.
    :ivar sm_clock_baseline_mhz: the administrator's own SM clock lock; 0: none.
    """

    alert_celsius: float = 0.0
    critical_celsius: float = 0.0
    safe_celsius: float = 0.0
    policy: PolicyName = "regulated"
    sm_clock_baseline_mhz: int = 0


class ThermalSettings(Section):
    """The cooling guard of each card."""

    sample_hertz: float = setting(
        5.0,
        description="How often each card's sensors are read.",
        why="most of a card's response to load is over within a second (measured on an H200); "
        "a sample costs 8 microseconds",
        unit="hertz",
        at_least=1,
        at_most=20,
    )
    decide_hertz: float = setting(
        2.0,
        description="How often the policy decides what to do; never more often than it samples.",
        why="fast enough for a heat sink, slow enough for the card to show what the last step did",
        unit="hertz",
        at_least=0.5,
        at_most=5,
    )
    policy: PolicyName = setting(
        "regulated",
        description="How a hot card is cooled: regulated holds it just under alert by its power "
        "limit, stepped goes to fixed limits at alert and at critical.",
        why="it keeps nearly all of the throughput; stepped is simpler to foresee",
        allowed=_POLICY,
    )
    alert_celsius: Celsius = setting(
        0.0,
        description="Where cooling begins. 0 takes it from what the card says: 78 C, or 7 C below "
        "its maximum operating temperature if that is less.",
        why="cards differ: some run at 85 C by design, others top out at 57 C",
        allowed=_CELSIUS,
    )
    critical_celsius: Celsius = setting(
        0.0,
        description="Where everything is done to cool. 0 takes it from what the card says: 85 C, "
        "or its maximum operating temperature if that is less. At least 5 C below the card's "
        "shutdown.",
        why="cards differ, as for alert_celsius",
        allowed=_CELSIUS,
    )
    safe_celsius: Celsius = setting(
        0.0,
        description="Where a card counts as cool again. 0 is 6 C below alert.",
        why="far enough below alert that the state doesn't flutter",
        allowed=_CELSIUS,
    )
    safe_seconds: float = setting(
        30.0,
        description="How long a card must stay cool before its settings are all given back.",
        why="a short pause in the load is no recovery",
        unit="seconds",
        at_least=1,
        at_most=3600,
    )
    memory_clock_lock: bool = setting(
        False,
        description="Whether the memory's clock may be locked, too, to cool a card.",
        why="on some cards (Blackwell) any lock slows far more than it cools: up to 32 %",
        allowed="true or false",
    )
    sm_clock_baseline_mhz: ClockMhz = setting(
        0,
        description="Your own lock of the SM clock (nvidia-smi -lgc), which is put back after "
        "cooling; 0 is none.",
        why="most cards have none; no driver tells it, so it would be lost if it isn't given here",
        allowed=_MHZ,
    )
    cards: dict[CardUuid, CardSettings] = setting(
        dict,
        description="What is different for single cards, each in a table named by its UUID "
        "(nvidia-smi -L lists them). What it doesn't set is as in [thermal].",
        why="every card is treated alike",
        allowed='tables: [thermal.cards."GPU-..."]',
    )
    hooks: Annotated[tuple[HookSettings, ...], BeforeValidator(list_to_tuple)] = setting(
        (),
        description="Other programs that are told when a card enters a state, each by a POST or a "
        "command. Never our own front door, which follows the cards' states by itself.",
        why="nobody needs to be told until you say so",
        allowed="tables, each with on and either post or command: [[thermal.hooks]]",
    )

    def of_card(self, uuid: str) -> CardWishes:
        """What holds for the card with this UUID."""
        own = self.cards.get(uuid, CardSettings())
        return CardWishes(
            alert_celsius=_own(own.alert_celsius, self.alert_celsius),
            critical_celsius=_own(own.critical_celsius, self.critical_celsius),
            safe_celsius=_own(own.safe_celsius, self.safe_celsius),
            policy=_own(own.policy, self.policy),
            sm_clock_baseline_mhz=_own(own.sm_clock_baseline_mhz, self.sm_clock_baseline_mhz),
        )


def _own(special: Value | None, general: Value) -> Value:
    return general if special is None else special
