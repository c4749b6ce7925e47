# SPDX-License-Identifier: Apache-2.0
"""Puts the little Markdown that our generated documents have on a manual page. Pure."""

import re

from tools.manual.roff import Page

_BULLET = re.compile(r"^- (.*)")


def add(page: Page, text: str) -> None:
    """Headings, paragraphs, lists and code; other headings than of the first level are sections."""
    text = re.sub(r"<!--.*?-->\n*", "", text, flags=re.DOTALL)
    for block in _blocks(text):
        first = block[0]
        if first.startswith("```"):
            page.verbatim(f"    {line}" for line in block[1:-1])
        elif first.startswith("# "):
            page.section_of("Description")
        elif first.startswith("## "):
            page.section_of(first[3:])
        elif first.startswith("#"):
            page.part(first.lstrip("# "))
        elif _BULLET.match(first):
            for bullet in _bullets(block):
                page.bullet(bullet)
        else:
            page.paragraph(" ".join(block))


def _blocks(text: str) -> list[list[str]]:
    """Parts between empty lines; code is one part with all it has."""
    blocks: list[list[str]] = [[]]
    in_code = False
    for line in text.splitlines():
        if line.startswith("```"):
            if not in_code:
                blocks.append([])
            blocks[-1].append(line)
            in_code = not in_code
            if not in_code:
                blocks.append([])
        elif in_code or line.strip():
            if not in_code and _BULLET.match(line) and blocks[-1] and not _listed(blocks[-1]):
                blocks.append([])
            blocks[-1].append(line)
        else:
            blocks.append([])
    return [block for block in blocks if block]


def _listed(block: list[str]) -> bool:
    return bool(_BULLET.match(block[0]))


def _bullets(block: list[str]) -> list[str]:
    bullets: list[str] = []
    for line in block:
        if match := _BULLET.match(line):
            bullets.append(match[1])
        else:
            bullets[-1] += f" {line.strip()}"
    return bullets
