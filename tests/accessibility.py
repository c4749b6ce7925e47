# SPDX-License-Identifier: Apache-2.0
"""What axe-core, the usual checker of accessibility, finds on a page."""

from pathlib import Path
from typing import Any

from tests.browser import Page

AXE_FILE = (
    Path(__file__).resolve().parents[1] / "build" / "axe" / "axe_playwright_python" / "axe.min.js"
)
# Everything that isn't only a matter of taste is asked for: WCAG 2.2 AA and axe's best practices.
FIND = """
axe.run(document).then((told) => told.violations.flatMap((rule) => rule.nodes.map((node) =>
    `${rule.impact} ${rule.id}: ${node.html.slice(0, 200)} ${node.failureSummary}`)))
"""


async def faults(page: Page) -> list[str]:
    """Every violation on the page, minor ones too, each with its element and what would mend it."""
    await page.evaluate(AXE_FILE.read_text(encoding="utf-8"))
    found: Any = await page.evaluate(FIND)
    return [str(each) for each in found]
