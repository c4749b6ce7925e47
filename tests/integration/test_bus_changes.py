# SPDX-License-Identifier: Apache-2.0
# Who may change something, and what happens then: every method that acts, as root and as a member
# of the group, with the real polkit, without one, and with one that never answers.

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.errors import BusError
from gpuwarden.bus.polkit import Polkit
from gpuwarden.control.socket import ControlError
from gpuwarden.guard.denials import Denials
from gpuwarden.guard.permission import QUESTIONS_AT_ONCE
from gpuwarden.names import BUS_NAME, THERMAL_OVERRIDE_ACTION, gpu_object
from gpuwarden.systemd.events import Event, follow, unfollow
from tests.integration.authority import polkit, polkit_bus_policy, slow_polkit
from tests.integration.bus_peers import Guarded, client, guarded
from tests.integration.private_bus import (
    MEMBER,
    OTHER,
    REPOSITORY,
    ROOT,
    PrivateBus,
    User,
    private_bus,
    shipped_policy,
)
from tests.integration.thermal_peer import ThermalPeer, thermal_peers

THERMAL = f"{BUS_NAME}.Thermal"
ACTS = {
    "Override": ("string:alert", "uint32:600"),
    "ClearOverride": (),
    "Release": ("uint32:600",),
}
DONE = {
    "Override": {"request": "override", "state": "alert", "seconds": 600},
    "ClearOverride": {"request": "clear-override"},
    "Release": {"request": "release", "seconds": 600},
}
METHODS = pytest.mark.parametrize("method", sorted(ACTS))
DENIED = "Error org.freedesktop.DBus.Error.AccessDenied: "
NOBODY_RULE = """polkit.addRule(function (action, subject) {
    return action.id == "%s" && subject.user == "nobody" ? polkit.Result.%s : null;
});
"""


@pytest.fixture
async def bus() -> AsyncIterator[PrivateBus]:
    async with private_bus([polkit_bus_policy(), shipped_policy()]) as running:
        yield running


@pytest.fixture
async def cards(bus: PrivateBus) -> AsyncIterator[dict[int, ThermalPeer]]:
    async with thermal_peers(bus.folder, 0, 1) as peers:
        yield peers


@pytest.fixture
async def service(bus: PrivateBus, cards: dict[int, ThermalPeer]) -> AsyncIterator[Guarded]:
    async with guarded(bus, polkit=lambda bus: Polkit(bus, 1.0, 3.0)) as running:
        yield running


async def act(bus: PrivateBus, user: User, method: str, *, gpu: int = 0) -> str:
    """Call with dbus-send, which tells an error's name and text; empty if it was done."""
    send = ("dbus-send", f"--bus={bus.address}", "--print-reply", f"--dest={BUS_NAME}")
    status, output = await bus.run(
        user, *send, gpu_object(gpu), f"{THERMAL}.{method}", *ACTS[method]
    )
    assert (status == 0) == output.startswith("method return")
    return output if status else ""


def told(caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    """The fields of the one change that the journal tells of."""
    (fields,) = [
        each.fields  # type: ignore[attr-defined]  # as JournalHandler sees it
        for each in caplog.records
        if getattr(each, "fields", {}).get("GPUWARDEN_EVENT", "").startswith("change-")
    ]
    return dict(fields)


# The real polkit


@METHODS
async def test_root_may(
    bus: PrivateBus,
    service: Guarded,
    cards: dict[int, ThermalPeer],
    method: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with polkit(bus):
        assert await act(bus, ROOT, method, gpu=1) == ""
    assert cards[1].done == [DONE[method]]
    assert cards[0].done == []
    fields = told(caplog)
    assert fields["GPUWARDEN_EVENT"] == "change-granted"
    assert (fields["CALLER_UID"], fields["GPU"], fields["REASON"]) == ("0", "1", "")
    assert fields["METHOD"].startswith(f"Thermal.{method}(")


@METHODS
async def test_a_member_may_not_without_a_password(
    bus: PrivateBus,
    service: Guarded,
    cards: dict[int, ThermalPeer],
    method: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with polkit(bus):
        refusal = await act(bus, MEMBER, method)
    assert DENIED in refusal
    assert "needs an administrator's password" in refusal
    assert cards[0].done == []
    assert service.node.held == set()
    fields = told(caplog)
    assert fields["GPUWARDEN_EVENT"] == "change-denied"
    assert fields["CALLER_UID"] == str(MEMBER.uid)
    assert fields["ACTION"] == THERMAL_OVERRIDE_ACTION


async def test_a_user_in_a_loop_is_counted(
    bus: PrivateBus, cards: dict[int, ThermalPeer], caplog: pytest.LogCaptureFixture
) -> None:
    counted = asyncio.Event()

    def follower(event: Event, message: str, level: int, fields: Mapping[str, str]) -> None:
        if event is Event.CHANGES_DENIED:
            assert fields == {"COUNT": "2", "CALLER": f"uid {MEMBER.uid}"}
            counted.set()

    follow(follower)
    async with guarded(bus, denials=Denials(told_singly=1, window_seconds=2.0)), polkit(bus):
        for _ in range(3):
            assert DENIED in await act(bus, MEMBER, "Override")
        assert told(caplog)["GPUWARDEN_EVENT"] == "change-denied"
        async with asyncio.timeout(10):
            await counted.wait()
    unfollow(follower)


async def test_a_rule_of_the_site_lets_members_do_what_it_names(
    bus: PrivateBus, service: Guarded, cards: dict[int, ThermalPeer]
) -> None:
    async with polkit(bus, NOBODY_RULE % (THERMAL_OVERRIDE_ACTION, "YES")):
        assert await act(bus, MEMBER, "Override") == ""
    assert cards[0].done == [DONE["Override"]]


async def test_the_documented_rule_does_what_it_says(
    bus: PrivateBus, service: Guarded, cards: dict[int, ThermalPeer]
) -> None:
    document = (REPOSITORY / "docs/operate.md").read_text()
    (rule,) = re.findall(r"^```js\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    in_group = 'subject.isInGroup("gpuwarden")'
    assert in_group in rule
    # The groups of the tests' users are the kernel's; polkit reads them from the accounts.
    async with polkit(bus, rule.replace(in_group, 'subject.user == "nobody"')):
        assert await act(bus, MEMBER, "Override") == ""
    assert cards[0].done == [DONE["Override"]]


async def test_a_rule_that_refuses_is_said(bus: PrivateBus, service: Guarded) -> None:
    async with polkit(bus, NOBODY_RULE % (THERMAL_OVERRIDE_ACTION, "NO")):
        refusal = await act(bus, MEMBER, "Override")
    assert refusal.startswith(f"{DENIED}polkit does not grant {THERMAL_OVERRIDE_ACTION}")


@METHODS
async def test_others_do_not_even_reach_polkit(
    bus: PrivateBus, service: Guarded, cards: dict[int, ThermalPeer], method: str
) -> None:
    async with slow_polkit(bus):
        assert DENIED in await act(bus, OTHER, method)
    assert cards[0].done == []


# No polkit, or none that answers


async def test_without_polkit_root_alone_may(
    bus: PrivateBus,
    service: Guarded,
    cards: dict[int, ThermalPeer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert f"{DENIED}only root may now" in await act(bus, MEMBER, "Override")
    assert cards[0].done == []
    caplog.set_level(logging.INFO)
    caplog.clear()
    assert await act(bus, ROOT, "Override") == ""
    assert cards[0].done == [DONE["Override"]]
    assert "polkit" in told(caplog)["REASON"]


@pytest.mark.parametrize("interactive", ["yes", "no"])
async def test_a_polkit_that_never_answers_denies_members_and_holds_nobody_up(
    bus: PrivateBus, service: Guarded, cards: dict[int, ThermalPeer], interactive: str
) -> None:
    asks = f"--allow-interactive-authorization={interactive}"
    call = ("call", BUS_NAME, gpu_object(0), THERMAL, "ClearOverride")
    async with slow_polkit(bus) as questions:
        refused = asyncio.create_task(bus.busctl(MEMBER, asks, *call))
        asked = (await questions.readline()).decode().split()
        assert asked[:3] == ["asked", THERMAL_OVERRIDE_ACTION, "1" if interactive == "yes" else "0"]
        # The loop serves others meanwhile.
        status, _ = await bus.busctl(MEMBER, "get-property", *call[1:4], "State")
        assert status == 0
        assert not refused.done()
        status, output = await refused
        assert (status, "Access denied" in output) == (1, True)
        assert cards[0].done == []
        if interactive == "yes":
            assert (await questions.readline()).decode().split() == ["taken", "back", asked[3]]
        # Root is never to be asked for a password.
        assert (await bus.busctl(ROOT, *call))[0] == 0
        assert (await questions.readline()).decode().split()[2] == "0"
    assert cards[0].done == [DONE["ClearOverride"]]


async def test_members_in_a_loop_do_not_keep_root_out(
    bus: PrivateBus, service: Guarded, cards: dict[int, ThermalPeer]
) -> None:
    flood = f"for i in $(seq 80); do {member_call(bus)} & done; wait"
    async with slow_polkit(bus) as questions:
        members = asyncio.create_task(bus.run(MEMBER, "sh", "-c", flood))
        for _ in range(QUESTIONS_AT_ONCE):
            assert (await questions.readline()).startswith(b"asked")
        assert await act(bus, ROOT, "ClearOverride") == ""
        _, output = await members
    assert "method return" not in output
    assert "callers are waiting for polkit already" in output
    assert cards[0].done == [DONE["ClearOverride"]]


def member_call(bus: PrivateBus) -> str:
    return (
        f"dbus-send --bus={bus.address} --print-reply --dest={BUS_NAME} {gpu_object(0)} "
        f"{THERMAL}.Override string:alert uint32:600"
    )


async def test_an_action_that_polkit_does_not_know_is_denied(
    bus: PrivateBus, service: Guarded, cards: dict[int, ThermalPeer], tmp_path: Path
) -> None:
    # As between the unpacking of our package and polkit's next look at its folder.
    async with polkit(bus, actions=tmp_path):
        refusal = await act(bus, MEMBER, "Override")
        assert DENIED in refusal
        assert "is not registered" in refusal
        assert await act(bus, ROOT, "Override") == ""
    assert cards[0].done == [DONE["Override"]]


# What is asked, and what comes of it


@pytest.fixture
async def caller(bus: PrivateBus, service: Guarded) -> AsyncIterator[Bus]:
    async with client(bus) as connection:
        yield connection


async def call(
    caller: Bus, method: str, signature: str = "", *arguments: object, gpu: int = 0
) -> list[object]:
    return await caller.call(
        BUS_NAME, gpu_object(gpu), THERMAL, method, signature, list(arguments), 10.0
    )


@pytest.mark.parametrize(
    ("method", "signature", "arguments", "words"),
    [
        ("Override", "su", ("normal", 60), "alert or critical"),
        ("Override", "su", ("", 60), "alert or critical"),
        ("Override", "su", ("released", 60), "alert or critical"),
        ("Override", "su", ("alert", 0), "1 to 86400"),
        ("Override", "su", ("alert", 86_401), "1 to 86400"),
        ("Release", "u", (0,), "1 to 86400"),
        ("Release", "u", (2**32 - 1,), "1 to 86400"),
        ("GetHistory", "u", (0,), "1 to 3600"),
        ("GetHistory", "u", (3601,), "1 to 3600"),
    ],
)
async def test_a_wrong_value_is_refused_in_words_and_nothing_is_done(
    cards: dict[int, ThermalPeer],
    service: Guarded,
    caller: Bus,
    method: str,
    signature: str,
    arguments: tuple[object, ...],
    words: str,
) -> None:
    with pytest.raises(BusError, match=words) as caught:
        await call(caller, method, signature, *arguments)
    assert caught.value.name == f"{BUS_NAME}.Error.InvalidArgument"
    assert (cards[0].done, cards[0].pages, service.node.held) == ([], 0, set())


async def test_wrong_types_are_refused_before_anybody_is_asked(
    cards: dict[int, ThermalPeer], caller: Bus
) -> None:
    with pytest.raises(BusError) as caught:
        await call(caller, "Override", "si", "alert", 60)
    assert caught.value.name == "org.freedesktop.DBus.Error.InvalidArgs"


async def test_a_card_that_is_not_there_is_said(service: Guarded, caller: Bus) -> None:
    with pytest.raises(BusError) as caught:
        await call(caller, "ClearOverride", gpu=9)
    assert caught.value.name == "org.freedesktop.DBus.Error.UnknownObject"
    # One that left while permission was asked.
    service.node.present.remove(1)
    for method, signature, arguments in (
        ("Override", "su", ("alert", 60)),
        ("ClearOverride", "", ()),
        ("GetHistory", "u", (60,)),
        ("Release", "u", (60,)),
    ):
        with pytest.raises(BusError, match="no GPU 1") as caught:
            await call(caller, method, signature, *arguments, gpu=1)
        assert caught.value.name == f"{BUS_NAME}.Error.NoSuchGpu"


async def test_a_card_in_use_is_not_released(
    cards: dict[int, ThermalPeer], service: Guarded, caller: Bus
) -> None:
    service.node.workers_on[0] = [0, 1]
    with pytest.raises(BusError, match="medgemma-worker@0 medgemma-worker@1") as caught:
        await call(caller, "Release", "u", 60)
    assert caught.value.name == f"{BUS_NAME}.Error.Busy"
    assert (cards[0].done, service.node.held) == ([], set())
    await call(caller, "Release", "u", 60, gpu=1)
    assert service.node.held == {1}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("InvalidArgument", "InvalidArgument"),
        ("Busy", "Busy"),
        ("Unavailable", "Unavailable"),
        ("Failed", "Failed"),
        ("AccessDenied", "Failed"),  # the guard's own trouble, not the caller's
        ("Nonsense", "Failed"),
    ],
)
async def test_what_a_thermal_guard_refuses_arrives_with_its_name(
    cards: dict[int, ThermalPeer], service: Guarded, caller: Bus, kind: str, name: str
) -> None:
    cards[0].refusal = ControlError(kind, "the card is lost")
    for method, signature, arguments in (("Override", "su", ("alert", 60)), ("Release", "u", (9,))):
        with pytest.raises(BusError, match="the card is lost") as caught:
            await call(caller, method, signature, *arguments)
        assert caught.value.name == f"{BUS_NAME}.Error.{name}"
    assert service.node.held == set()


async def test_a_dead_thermal_guard_is_unavailable_and_its_neighbour_is_not(
    bus: PrivateBus,
) -> None:
    async with thermal_peers(bus.folder, 1) as cards, guarded(bus), client(bus) as caller:
        for method, signature, arguments in (
            ("Override", "su", ("critical", 60)),
            ("GetHistory", "u", (60,)),
        ):
            with pytest.raises(BusError, match="medgemma-thermal@0") as caught:
                await call(caller, method, signature, *arguments)
            assert caught.value.name == f"{BUS_NAME}.Error.Unavailable"
        await call(caller, "Override", "su", "critical", 60, gpu=1)
        assert cards[1].done == [{"request": "override", "state": "critical", "seconds": 60}]
