# SPDX-License-Identifier: Apache-2.0
"""The page in Cockpit as a hospital has it: installed, behind Cockpit's own login and rights."""

import asyncio
from pathlib import Path

import pytest

from tests.accessibility import faults
from tests.browser import Page, browser
from tests.node.vm import Node
from tests.system.cockpit_node import install_cockpit, reachable
from tests.system.service import wait_for

# Where a run leaves what it saw.
PICTURES = Path(__file__).parents[2] / "build" / "screenshots"
USER, PASSWORD = "alice", "as good as any"
PAGE = "/gpuwarden"
LOGIN_SECONDS = 90.0
SLOW_SECONDS = 120.0
HOT = """
gpuwarden-sim set --gpu 0 --ambient 45 --resistance-factor 1.6
gpuwarden-sim load --gpu 0 --fraction 1.0
"""
# What no model can look at, as a durable job.
SPOILED = """
curl --silent --fail --data-binary 'no image' -H 'Content-Type: image/png' \\
    'http://127.0.0.1:7860/v1/jobs?question=any'
"""
# Dead for as long as the test wants: systemd would have it back in 200 ms.
NO_RESTART = "/run/systemd/system/medgemma-guard.service.d/99-stay-dead.conf"
DIE = f"""
mkdir -p $(dirname {NO_RESTART}); printf '[Service]\\nRestart=no\\n' > {NO_RESTART}
systemctl daemon-reload; systemctl kill --signal=KILL medgemma-guard
"""
COME_BACK = f"rm {NO_RESTART}; systemctl daemon-reload; systemctl reset-failed medgemma-guard"


@pytest.mark.long("tests/integration/test_cockpit_page.py")
def test_an_administrator_sees_a_hot_card_and_drains_a_worker(node: Node) -> None:
    node.run(HOT)
    node.run(SPOILED)
    install_cockpit(node)
    node.run(f"adduser --quiet {USER} sudo; echo '{USER}:{PASSWORD}' | chpasswd")
    asyncio.run(visit(node, reachable(node)))


async def visit(node: Node, address: str) -> None:
    """Everything in one session: logging in is what takes the time."""
    async with browser() as chromium:
        page = await chromium.open(f"{address}{PAGE}", width=1280, height=1000)
        await log_in(page)
        await limited_access(page)
        await administrative_access(page)
        await a_hot_card(node, page)
        await a_drained_worker(node, page)
        await a_dead_supervisor(node, page)


async def log_in(page: Page) -> None:
    # It is there before it is shown, and not listened to before that.
    shown = "Boolean(document.querySelector('#login-user-input')?.offsetParent)"
    await page.until(shown, LOGIN_SECONDS)
    await page.type("#login-user-input", USER)
    await page.type("#login-password-input", PASSWORD)
    await page.click("#login-button")


async def limited_access(page: Page) -> None:
    """Neither an administrator yet nor of the group: said in words, and with whose name."""
    page.inside = "/gpuwarden/index.html"
    await page.sees("You may not see this", LOGIN_SECONDS)
    await page.sees(f"adduser {USER} gpuwarden")
    assert await faults(page) == []


async def administrative_access(page: Page) -> None:
    page.inside = ""
    await page.click("button.ct-locked")
    await page.type("#switch-to-admin-access-password", PASSWORD)
    await page.click("button", "Authenticate")
    page.inside = "/gpuwarden/index.html"
    await page.sees("Card 0", SLOW_SECONDS)
    # Cockpit's own of the login, such as what it may not see yet.
    page.complaints.clear()


async def a_hot_card(node: Node, page: Page) -> None:
    await page.sees("Running hot", SLOW_SECONDS)
    await page.sees("lowered, its own limit is", SLOW_SECONDS)
    await page.until("document.querySelectorAll('svg .line.celsius').length >= 2")
    await page.sees("thermal-state")  # out of the journal
    await page.sees("bad_image", SLOW_SECONDS)  # from root's own door, by sudo's rules
    await page.sees("Look again", SLOW_SECONDS)
    for scheme in ("light", "dark"):
        await page.prefer(scheme)
        dark = "document.documentElement.classList.contains('pf-v5-theme-dark')"
        await page.until(f"{dark} === {str(scheme == 'dark').lower()}")
        assert await faults(page) == []
        PICTURES.mkdir(parents=True, exist_ok=True)
        (PICTURES / f"cockpit-node-{scheme}.png").write_bytes(await page.screenshot())
    assert page.complaints == []


async def a_drained_worker(node: Node, page: Page) -> None:
    await page.click("button", "Drain worker 1")
    await page.sees("Drain worker 1? It gets no new work")
    await page.click("dialog button.primary")
    await page.sees("Drained: gets no new work", SLOW_SECONDS)
    granted = "journalctl --no-pager GPUWARDEN_EVENT=change-granted | grep -q DrainWorker"
    wait_for(node, granted)


async def a_dead_supervisor(node: Node, page: Page) -> None:
    node.run(DIE)
    await page.sees("The service isn't running", SLOW_SECONDS)
    await page.sees("Last known at")
    node.run(COME_BACK)
    await page.click("button", "Start the service")
    await page.sees("of 2 can answer", SLOW_SECONDS)
    await page.until('!document.body.innerText.includes("isn\'t running")', SLOW_SECONDS)
