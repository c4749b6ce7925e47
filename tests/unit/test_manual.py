# SPDX-License-Identifier: Apache-2.0
"""The manual pages: one for everything that there is, clean, and true to its source."""

import argparse
import re
import subprocess
from pathlib import Path

import pytest

from gpuwarden.bus.objects.publisher import INTERFACES
from gpuwarden.cli.main import COMMANDS, tree
from gpuwarden.config.explain import sections
from tools.manual.__main__ import pages, write
from tools.manual.roff import Page, escaped, running

ROOT = Path(__file__).parents[2]
BY_HAND = ROOT / "packaging" / "man" / "gpuwarden-sim.1"


@pytest.fixture(scope="module")
def manual() -> dict[str, Page]:
    return {page.file_name: page for page in pages()}


def test_everything_has_its_page(manual: dict[str, Page]) -> None:
    units = [f"{file.name}.8" for file in (ROOT / "packaging" / "systemd").iterdir()]
    commands = [f"gpuwarden-{name}.1" for name in COMMANDS]
    other = ["gpuwarden.1", "gpuwarden.toml.5", "org.gpuwarden1.5"]
    assert sorted(manual) == sorted([*units, *commands, *other])


def test_mandoc_has_nothing_to_say_of_any_page(tmp_path: Path) -> None:
    files = write(tmp_path)
    done = subprocess.run(
        ["mandoc", "-T", "lint", *files, BY_HAND],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_option_of_every_command_is_on_its_page(manual: dict[str, Page]) -> None:
    parser, _ = tree(COMMANDS)
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for name, below in commands.choices.items():
        for option in re.findall(r"--[a-z-]+", below.format_help().partition("examples:")[0]):
            if option != "--help":
                assert escaped(option) in manual[f"gpuwarden-{name}.1"].text, (name, option)


def test_every_setting_and_every_member_of_the_bus_is_on_its_page(manual: dict[str, Page]) -> None:
    for name, model in sections():
        assert f".SH [{name}]" in manual["gpuwarden.toml.5"].text
        for key in model.model_fields:
            assert f".SS {key}\n" in manual["gpuwarden.toml.5"].text
    for interface in INTERFACES:
        names = [each.name for each in interface.methods]
        names += [each.name for each in interface.properties]
        names += [each.name for each in interface.signals]
        for name in names:
            assert re.search(rf"{name}\b", manual["org.gpuwarden1.5"].text)


def test_every_unit_names_its_own_page(manual: dict[str, Page]) -> None:
    for file in (ROOT / "packaging" / "systemd").iterdir():
        assert f"man:{file.name}(8)" in file.read_text()


def test_every_other_page_that_is_named_of_ours_exists(manual: dict[str, Page]) -> None:
    ours = re.compile(r"\b((?:gpuwarden|medgemma|org\.gpuwarden1)[\w.@-]*)\W{0,3}\((\d)\)")
    for page in manual.values():
        text = page.text.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "")
        for name, section in ours.findall(text.replace(" (", "(")):
            assert f"{name}.{section}" in {*manual, BY_HAND.name}, page.file_name


def test_text_is_shown_as_it_is() -> None:
    assert escaped("a-b \\ ~ 'x' `y`") == "a\\-b \\e \\(ti \\(aqx\\(aq \\(gay\\(ga"
    assert running(".begins like a request") == ["\\&.begins like a request"]
    assert running("see [the page](page.md) of `gpuwarden logs`") == [
        "see the page of \\fBgpuwarden\\~logs\\fR"
    ]
