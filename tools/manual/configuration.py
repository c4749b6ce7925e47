# SPDX-License-Identifier: Apache-2.0
"""gpuwarden.toml(5), from the page that gpuwarden.config.reference makes of the models."""

from collections.abc import Iterator

from gpuwarden.config.reference import documentation
from tools.manual import markdown
from tools.manual.roff import Page


def pages(date: str, version: str) -> Iterator[Page]:
    """The one page."""
    page = Page("gpuwarden.toml", 5, "configuration of gpuwarden", date, version)
    page.section_of("Synopsis")
    page.verbatim(["/etc/gpuwarden/gpuwarden.toml", "/etc/gpuwarden/conf.d/*.toml"])
    markdown.add(page, documentation())
    page.see_also(
        [
            *(("gpuwarden", 1), ("gpuwarden-config", 1), ("gpuwarden-reload", 1)),
            ("medgemma-guard.service", 8),
        ]
    )
    yield page
