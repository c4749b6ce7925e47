# SPDX-License-Identifier: Apache-2.0
"""When a card is taken out of service, and when it comes back."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.control.states import ThermalData, Xid
from gpuwarden.guard.breaker import (
    CLOSED,
    Breaker,
    Remedy,
    closed_by_hand,
    next_breaker,
    remembered,
)
from gpuwarden.nvml.vocabulary import recovery_action
from gpuwarden.values import ThermalState
from gpuwarden.xids import XIDS, XidClass, describe_xid, xid_class

NORMAL, RELEASED = ThermalState.NORMAL, ThermalState.RELEASED
RECOVERY_WORDS = [recovery_action(number) for number in range(8)] + ["unknown"]


def card(
    *xids: int, recovery: str = "unknown", state: ThermalState = NORMAL, at: int = 1
) -> ThermalData:
    return ThermalData(
        index=0,
        uuid="GPU-0",
        name="A100",
        pci_address="",
        numa_node=0,
        state=state,
        since=1,
        recovery_action=recovery,
        xids=[Xid(number=xid, unix_microseconds=at) for xid in xids],
    )


def after(*looks: ThermalData | None, before: Breaker = CLOSED) -> Breaker:
    for look in looks:
        before = next_breaker(before, look)
    return before


@pytest.mark.parametrize(
    ("xid", "remedy"),
    [
        *((number, "") for number in (8, 13, 31, 94)),  # RESTART_APP
        *((number, "reset") for number in (46, 48, 62, 64, 95, 109, 119, 120, 140, 143)),
        (79, "reboot"),
        *((number, "") for number in (43, 45, 63, 92, 154, 999)),  # IGNORE, unknown
    ],
)
def test_what_an_xid_asks_for(xid: int, remedy: Remedy) -> None:
    assert after(card(xid)).remedy == remedy


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (0, ""),
        (1, "reset"),
        (2, "reboot"),
        (3, ""),
        (4, "reset"),
        (5, ""),
        (6, "reset"),
        (7, "reboot"),
        (None, ""),
    ],
)
def test_what_the_cards_own_recovery_action_asks_for(number: int | None, remedy: Remedy) -> None:
    assert after(card(recovery=recovery_action(number))).remedy == remedy


CASES: list[tuple[str, list[ThermalData | None], Remedy]] = [
    ("the graver remedy counts", [card(119), card(119, 79)], "reboot"),
    ("in whatever order", [card(79), card(79, 119)], "reboot"),
    ("the card's word and an XID's", [card(119, recovery="node-reboot")], "reboot"),
    ("a silent thermal guard changes nothing", [card(119), None, None], "reset"),
    ("a report is judged once", [card(119), card(119, state=RELEASED), card(119)], ""),
    ("the card says that it is well", [card(recovery="gpu-reset"), card(recovery="none")], ""),
    ("it does not say so", [card(recovery="gpu-reset"), card()], "reset"),
    ("that it never asked proves nothing", [card(119, recovery="none")] * 2, "reset"),
    (
        "let go of, as a reset needs it, and back",
        [card(62), card(62, state=RELEASED), card(62)],
        "",
    ),
    ("let go of, and not back yet", [card(62), card(62, state=RELEASED)], "reset"),
    (
        "back, and it still asks for one",
        [card(62), card(62, state=RELEASED), card(62, recovery="gpu-reset")],
        "reset",
    ),
    (
        "back, and blind",
        [card(62), card(62, state=RELEASED), card(62, state=ThermalState.BLIND)],
        "reset",
    ),
    (
        "lost, and found again",
        [card(79), card(79, state=ThermalState.LOST), card(79)],
        "",
    ),
    (
        "the same XID again",
        [card(62), card(62, state=RELEASED), card(62), card(62, at=2)],
        "reset",
    ),
]


@pytest.mark.parametrize(
    ("looks", "remedy"), [each[1:] for each in CASES], ids=[c[0] for c in CASES]
)
def test_a_card_serves_again_when_it_is_well(
    looks: list[ThermalData | None], remedy: Remedy
) -> None:
    assert after(*looks).remedy == remedy


def test_an_operator_may_close_it_and_a_new_report_opens_it_again() -> None:
    opened = after(card(119))
    closed = closed_by_hand(opened)
    assert after(card(119), before=closed).remedy == ""
    assert after(card(119), card(119, 79), before=closed).remedy == "reboot"


def test_a_new_guard_knows_what_was_judged_and_why() -> None:
    opened = remembered("reset", card(119))
    assert (opened.remedy, opened.why) == ("reset", describe_xid(119))
    assert after(card(119), before=opened).remedy == "reset"
    assert after(card(119), before=remembered("", card(119))).remedy == ""
    assert after(card(recovery="none"), before=remembered("reset", card(recovery="gpu-reset"))) == (
        CLOSED
    )
    assert remembered("reboot", None).remedy == "reboot"


def test_it_says_what_to_do() -> None:
    assert "nvidia-smi -r -i 3" in after(card(119)).what_to_do(3)
    assert after(card(79)).what_to_do(0) == "reboot this node"
    assert CLOSED.what_to_do(0) == ""
    assert after(card(79)).why == "XID 79 (the card has fallen off the bus)"
    assert describe_xid(999) == "XID 999"


looks = st.builds(
    card,
    st.sampled_from([*XIDS, 999]),
    recovery=st.sampled_from(RECOVERY_WORDS),
    state=st.sampled_from(ThermalState),
    at=st.integers(1, 3),
)


@given(st.lists(st.none() | looks, max_size=30))
def test_it_opens_only_for_a_reason_and_a_second_look_changes_nothing(
    seen: list[ThermalData | None],
) -> None:
    now = CLOSED
    for look in seen:
        before, now = now, next_breaker(now, look)
        if look is not None and not before.remedy and now.remedy:
            classes = {xid_class(xid.number) for xid in look.xids}
            asked = look.recovery_action in ("unknown", "none", "drain-p2p", "recover-imex-domain")
            assert not asked or classes & {XidClass.RESET, XidClass.REBOOT}
            assert now.why
        assert next_breaker(now, None) == now
        if look is not None and look.state is not NORMAL:
            again = next_breaker(now, look)
            assert replace(again, was_away=False) == replace(now, was_away=False)
