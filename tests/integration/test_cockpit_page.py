# SPDX-License-Identifier: Apache-2.0
"""The page in Cockpit, in a real browser over a real Cockpit and the service's real objects."""

import json
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from gpuwarden.control.states import GatewayJobs, GuardData, ThermalData
from gpuwarden.values import ServiceState, ThermalState, WorkerState
from tests.accessibility import faults
from tests.browser import Browser, browser
from tests.integration.bus_peers import GUARD, guarded, service
from tests.integration.bus_states import card, gateway, state, worker
from tests.integration.cockpit_session import PAGE_FOLDER, cockpit_session, local_door
from tests.integration.gateway_node import GatewayNode, gateway_node
from tests.integration.private_bus import (
    MEMBER,
    NOBODY,
    OTHER,
    REPOSITORY,
    PrivateBus,
    private_bus,
    shipped_policy,
)
from tests.integration.systemd_peer import POLICY
from tests.integration.thermal_peer import ThermalPeer, row, thermal_peers

LINES_LIMIT = 400
PICTURES = REPOSITORY / "build" / "screenshots"
EVENT = {
    "__CURSOR": "s=1",
    "__REALTIME_TIMESTAMP": str(time.time_ns() // 1000),
    "MESSAGE": "GPU 0: normal -> alert at 80 C",
    "GPUWARDEN_EVENT": "thermal-state",
    "PRIORITY": "4",
}
# The journal and doctor of the machine that runs the tests are none of theirs.
FINDINGS = {
    "counts": {"wrong": 1, "doubtful": 0, "unknown": 1, "good": 30},
    "findings": [
        {
            "subject": "memory",
            "name": "swap",
            "verdict": "wrong",
            "found": "8 GiB of swap, unencrypted",
            "wanted": "none that patients' data can reach",
            "why": "what is swapped out stays on the disk.",
            "mend": "swapoff -a  # and take it out of /etc/fstab",
        }
    ],
}
JOB_ROWS = """[...document.querySelectorAll("#requests-title ~ .scroll tbody tr")].map(
    (row) => row.innerText.replace(/\\s+/g, " "))"""
PROGRAMS = {
    "journalctl": f"echo '{json.dumps(EVENT)}'; exec sleep 600",
    # As doctor ends where something is wrong.
    "gpuwarden": f"cat <<'END'\n{json.dumps(FINDINGS)}\nEND\nexit 1",
}


@pytest.fixture
async def bus() -> AsyncIterator[PrivateBus]:
    async with private_bus([shipped_policy(), POLICY]) as running:
        yield running


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as running:
        yield running


@pytest.fixture
async def address(bus: PrivateBus) -> AsyncIterator[str]:
    async with cockpit_session(bus, PROGRAMS) as where:
        yield where


def hot_state() -> GuardData:
    """Card 0 runs hot, worker 1 has failed."""
    hot: dict[str, object] = {
        "state": ThermalState.ALERT,
        "temperature_celsius": 81.0,
        "critical_celsius": 90.0,
        "power_limit_watts": 452.0,
        "original_power_limit_watts": 700.0,
        "batch_limit": 2,
        "reason": "die at 81 C",
        "since": time.time_ns() // 1000 - 1_380_000_000,
    }
    return state(
        state=ServiceState.DEGRADED,
        reasons=["GPU 0 is alert: die at 81 C"],
        workers_ready=1,
        workers=[worker(0), worker(1, state=WorkerState.FAILED, last_error="out of memory")],
        gpus=[card(0, **hot), card(1)],
    )


def fill(peer: ThermalPeer) -> None:
    """An hour in which the card warmed up, and was held at alert for the last third."""
    now = time.time_ns() // 1000
    for second in range(3590):
        celsius = 55 + 26 * (1 - math.exp(-second / 900))
        held = second > 2400
        peer.rows.append(
            row(
                now - (3590 - second) * 1_000_000,
                celsius=celsius,
                celsius_highest=celsius,
                watts=440.0 if held else 650.0,
                limit_watts=452.0 if held else 700.0,
                state=ThermalState.ALERT if held else ThermalState.NORMAL,
            )
        )


async def test_a_hot_card_is_told_in_words_drawn_and_fit_for_everybody(
    bus: PrivateBus, address: str, chromium: Browser
) -> None:
    async with thermal_peers(bus.folder, 0, 1) as peers, guarded(bus, hot_state()):
        fill(peers[0])
        page = await chromium.open(address)
        await page.sees("Running hot for 23 minutes")
        await page.sees("452 W; lowered, its own limit is 700 W")
        await page.sees("55 to 81 °C")
        await page.sees("Nothing is known of its last hour")  # card 1's
        await page.sees("8 GiB of swap, unencrypted")
        await page.sees("GPU 0: normal -> alert at 80 C")
        drawn = await page.evaluate("document.querySelectorAll('svg .line.celsius').length")
        assert drawn == 1
        PICTURES.mkdir(parents=True, exist_ok=True)
        for scheme in ("light", "dark"):
            await page.prefer(scheme)
            dark = "document.documentElement.classList.contains('pf-v5-theme-dark')"
            await page.until(f"{dark} === {str(scheme == 'dark').lower()}")
            assert await faults(page) == []
            (PICTURES / f"cockpit-{scheme}.png").write_bytes(await page.screenshot())
        await page.resize(360, 800)
        assert await page.evaluate("document.documentElement.scrollWidth <= 360"), "it is too wide"
        assert page.complaints == []


async def test_cockpits_own_switch_goes_before_what_the_system_prefers(
    bus: PrivateBus, address: str, chromium: Browser
) -> None:
    async with guarded(bus):
        page = await chromium.open(address)
        await page.prefer("light")
        await page.sees("Card 0")
        await page.evaluate("localStorage.setItem('shell:style', 'dark')")
        await page.command("Page.reload")
        await page.until("document.documentElement.classList.contains('pf-v5-theme-dark')")


async def test_a_worker_is_drained_and_started_again_by_keyboard_alone(
    bus: PrivateBus, address: str, chromium: Browser
) -> None:
    focused = (
        "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
    )
    async with service(GUARD, bus, str(bus.folder)):
        page = await chromium.open(address)
        await page.sees("2 of 2 can answer")

        async def tab_to(label: str) -> None:
            for _ in range(30):
                if await page.evaluate(focused) == label:
                    return
                await page.press("Tab")
            raise AssertionError(f"{label} can't be reached: {await page.evaluate(focused)}")

        await tab_to("Drain worker 1")
        await page.press("Enter")
        await page.until("document.querySelector('dialog')?.open")
        await page.sees("Drain worker 1? It gets no new work")
        assert await faults(page) == []
        await page.press("Escape")
        await page.until("!document.querySelector('dialog')")
        await page.until(f"({focused}) === 'Drain worker 1'")

        await page.press("Enter")
        await page.until("document.querySelector('dialog')?.open")
        await tab_to("Drain worker 1")
        await page.press("Enter")
        await page.sees("Drain worker 1: accepted")
        await page.sees("Drained: gets no new work")
        said = "document.querySelector('#said').textContent"
        await page.until(f"{said} === 'Worker 1: Drained: gets no new work.'")

        # Its button is gone: the focus is on what has come in its place.
        await page.until(f"({focused}) === 'Start worker 1'")
        await page.press("Enter")
        await page.until("document.querySelector('dialog')?.open")
        await tab_to("Start worker 1")
        await page.press("Enter")
        await page.sees("2 of 2 can answer")
        assert page.complaints == []


async def test_what_is_refused_is_said_in_words(
    bus: PrivateBus, address: str, chromium: Browser
) -> None:
    async with guarded(bus):
        page = await chromium.open(address)
        await page.click("button", "Restart worker 0")
        await page.click("dialog button", "Restart worker 0")
        await page.sees("Restart worker 0: refused. there is no supervisor")


async def test_the_service_going_and_coming_back_is_seen(
    bus: PrivateBus, address: str, chromium: Browser
) -> None:
    async with guarded(bus):
        page = await chromium.open(address)
        await page.sees("Everything works")
    await page.sees("The service isn't running")
    await page.sees("Last known at")
    await page.sees("Card 0: NVIDIA H200")
    assert await faults(page) == []
    async with guarded(bus, hot_state()):
        await page.sees("Running hot")
        assert "isn't running" not in await page.text()
    assert page.complaints == []


async def test_a_page_that_finds_no_service_says_how_to_start_it(
    address: str, chromium: Browser
) -> None:
    page = await chromium.open(address)
    await page.sees("systemctl start medgemma-guard starts it")
    await page.sees("8 GiB of swap")
    await page.sees("thermal-state")


async def test_who_may_not_see_it_is_told_so(bus: PrivateBus, chromium: Browser) -> None:
    async with guarded(bus), cockpit_session(bus, PROGRAMS, OTHER) as address:
        page = await chromium.open(address)
        await page.sees("You may not see this")
        await page.sees(f"adduser {NOBODY.pw_name} gpuwarden")
        assert "Card 0" not in await page.text()
        assert await faults(page) == []
        assert page.complaints == []


async def test_a_member_of_the_group_sees_it_and_is_told_what_an_order_takes(
    bus: PrivateBus, chromium: Browser
) -> None:
    known = state(gateway=gateway(jobs=GatewayJobs(queued=1)))
    async with guarded(bus, known), cockpit_session(bus, PROGRAMS, MEMBER) as address:
        page = await chromium.open(address)
        await page.sees("Everything works")
        await page.sees("Single jobs are shown with administrative access")
        await page.click("button", "Restart worker 0")
        await page.click("dialog button", "Restart worker 0")
        await page.sees("Restart worker 0: you may not. It takes administrative access")
        assert page.complaints == []


async def jobs_of_all_kinds(node: GatewayNode) -> list[str]:
    """One that failed, one that a worker has, and one that waits; the ids of these."""

    async def submit(priority: int) -> str:
        path = f"/v1/jobs?priority={priority}&question=secret"
        reply = await node.post(b"image", path=path)
        return str(reply.json["id"])

    ids = [await submit(3)]
    worker = await node.busy_worker(0, auto=False, max_batch=1)
    worker.fail(await worker.next_job(), "bad_image", "Mrs. Miller")
    ids += [await submit(2)]
    await worker.next_job()
    await submit(1)  # which the worker prepares
    return [*ids, await submit(-1)]


async def test_an_administrator_sees_single_jobs_and_nothing_of_a_patient(
    bus: PrivateBus, address: str, chromium: Browser
) -> None:
    async with gateway_node(local=local_door(bus)) as node:
        ids = await jobs_of_all_kinds(node)
        counts = GatewayJobs(queued=1, running=1, failed=1)
        async with guarded(bus, state(gateway=gateway(jobs=counts))):
            page = await chromium.open(address)
            rows = await page.until(f"(({JOB_ROWS}).length === 4) && ({JOB_ROWS})")
            for identifier, words in zip(ids, ("Failed 3", "Running 2", "Waits -1"), strict=True):
                (row,) = [each for each in rows if each.startswith(identifier[:8])]
                assert words in row
            shown = await page.text()
            assert not [each for each in (*ids, "Miller", "secret") if each in shown]
            assert await faults(page) == []
            assert page.complaints == []


async def test_a_front_door_that_does_not_answer_is_said(
    bus: PrivateBus, address: str, chromium: Browser
) -> None:
    async with guarded(bus, state(gateway=gateway(jobs=GatewayJobs(queued=1)))):
        page = await chromium.open(address)
        await page.sees("Single jobs can't be listed")


async def test_what_is_unknown_or_fails_leaves_the_rest_of_the_page(
    bus: PrivateBus, chromium: Browser
) -> None:
    blind = ThermalData(
        index=0,
        uuid="GPU-00000000",
        name="",
        pci_address="",
        numa_node=-1,
        state=ThermalState.BLIND,
        since=0,
    )
    programs = {
        "journalctl": "echo 'No journal files: insufficient permissions.' >&2; exit 1",
        "gpuwarden": "echo 'the configuration is a folder' >&2; exit 2",
    }
    known = state(gpus=[blind], gateway=None)
    async with (
        guarded(bus, known),
        cockpit_session(bus, programs) as address,
    ):
        page = await chromium.open(address)
        await page.sees("Temperature can't be read")
        await page.sees("Its last hour can't be had")  # no thermal guard answers
        await page.sees("The front door isn't running")
        await page.sees("insufficient permissions")
        await page.sees("the configuration is a folder")
        for wrong in ("NaN", "null", "undefined"):
            assert wrong not in await page.text()
        assert await faults(page) == []
        assert page.complaints == []


async def test_the_pure_parts_keep_what_they_promise(chromium: Browser) -> None:
    folder = REPOSITORY / "tests" / "integration" / "cockpit"
    application = web.Application()
    application.router.add_static("/packaging/cockpit", PAGE_FOLDER)
    application.router.add_static("/tests/integration/cockpit", folder)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        page = await chromium.open(f"http://{host}:{port}/packaging/cockpit/parts.js")
        await page.until("document.readyState === 'complete'")
        for path in sorted(folder.glob("*.test.js")):
            told = await page.evaluate(
                "Promise.all([import('/tests/integration/cockpit/check.js'), "
                f"import('/tests/integration/cockpit/{path.name}')])"
                ".then(([check, { tests }]) => check.run(tests))"
            )
            assert told["failed"] == {}
            assert told["count"] > 5
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("path", sorted(PAGE_FOLDER.iterdir()), ids=lambda path: path.name)
def test_a_file_of_the_page_is_small_and_its_own(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < LINES_LIMIT
    # What the content security policy refuses, and what another host would have to bring.
    for refused in (" style=", "<style", "onclick=", "eval(", "innerHTML", "http://", "https://"):
        assert refused not in text.replace("http://www.w3.org/2000/svg", "")
