# SPDX-License-Identifier: Apache-2.0
"""Every command of ours that a page names is one that the program takes."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwarden.cli.main import parse
from tests.unit.test_documentation_blocks import DOCS, ROOT, blocks

# Where a command in a block ends: a pipe, the next command, a file, a remark.
END = re.compile(r"\s(?:\|\|?|&&|;|>)\s|\s+#|\s>|\s{3,}")
INSTALL = ("install.md", "sh")
# What stands for something, and for what.
PLACEHOLDERS = {"NAME": "xid"}
# Said of a command that is only named, not shown with all that it takes.
NAMED = re.compile(r"the following arguments are required|expected one argument")


def typed() -> Iterator[tuple[str, str]]:
    """Page and command of each line in a block."""
    for page, language, text in blocks():
        for line in text.replace("\\\n", " ").splitlines():
            if language in ("sh", "console") and re.match(r"(?:[$#] )?gpuwarden ", line):
                yield page, END.split(line)[0].lstrip("$# ")


def named() -> Iterator[tuple[str, str]]:
    """Page and command of each that stands within a sentence or a table."""
    for file in (*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        for command in re.findall(r"`(gpuwarden [a-z][^`]*)`", text):
            if not re.search(r"[\[|]|\.\.\.", command):  # no pattern of several
                yield file.name, command


def refusal(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    words = [_filled_in(word) for word in shlex.split(command)[1:]]
    try:
        parse(words)
    except SystemExit:
        return capsys.readouterr().err.strip()
    return ""


def _filled_in(word: str) -> str:
    return PLACEHOLDERS.get(word, "1") if re.fullmatch("[A-Z]+", word) else word


def test_every_command_in_a_block_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    found = list(typed())
    assert len(found) > 40
    wrong = [(*each, why) for each in found if (why := refusal(each[1], capsys))]
    assert wrong == []


def test_every_command_in_a_sentence_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    found = set(named())
    assert len(found) > 80
    wrong = [
        (*each, why)
        for each in sorted(found)
        if (why := refusal(each[1], capsys)) and not NAMED.search(why)
    ]
    assert wrong == []


def test_every_block_of_commands_is_bash() -> None:
    commands = "\n".join(f"{{\n{text}}}" for _, language, text in blocks() if language == "sh")
    done = subprocess.run(
        ["bash", "-n"], input=commands, capture_output=True, text=True, check=False, timeout=10
    )
    assert done.stderr == ""


def test_the_readme_leads_to_the_first_answer_in_six_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```sh\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    commands = block.splitlines()
    assert len(commands) <= 6
    install = next(text for page, language, text in blocks() if (page, language) == INSTALL)
    assert commands[0] == install.strip()
    assert commands[-1].startswith("curl ")


@pytest.mark.parametrize("file", [*sorted(DOCS.glob("*.md")), *sorted(ROOT.glob("*.md"))], ids=str)
def test_links_between_the_documents_hold(file: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", file.read_text(encoding="utf-8"), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (file.parent / target).exists(), f"{file.name}: {target}"
