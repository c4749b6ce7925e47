# SPDX-License-Identifier: Apache-2.0
"""Every block of code in the documentation is run, or shown for a reason."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwarden.config import load_configuration

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^ *```(\S*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
# Which test runs a page's blocks of a language, wherever the page is.
EVERYWHERE = {
    "sh": "tests/system/test_docs.py",
    "toml": "tests/unit/test_documentation_blocks.py",
}
# ... and of one page.
ON_PAGES = {
    ("dbus.md", "js"): "tests/system/test_permissions.py",
    ("develop.md", "python"): "tests/system/test_docs.py",
    ("integrate-bus.md", "python"): "tests/integration/test_integrate_bus_documentation.py",
    ("integrate.md", "python"): "tests/integration/test_integrate_documentation.py",
    ("models.md", "py"): "tests/unit/test_memory_plan.py",
    ("models.md", "python"): "tests/integration/test_models_documentation.py",
    ("operate.md", "js"): "tests/integration/test_bus_changes.py",
    ("page.md", "ini"): "tests/integration/test_page_documentation.py",
    ("page.md", "python"): "tests/integration/test_page_documentation.py",
    ("prometheus.md", "ini"): "tests/unit/test_documentation_blocks.py",
    ("prometheus.md", "yaml"): "tests/unit/test_documentation_blocks.py",
    ("proxy.md", "haproxy"): "tests/integration/test_proxy_documentation.py",
    ("proxy.md", "nginx"): "tests/integration/test_proxy_documentation.py",
    ("tuning.md", "ini"): "tests/unit/test_documentation_blocks.py",
}
# Commands that a reader types and a test doesn't, for these reasons. Each order of the bus is given
# by tests/system/test_permissions.py, with every right that a caller may have.
CONSOLE = {
    "cockpit.md": "fetches from the internet",
    "configure.md": "the page is made of tables; operate.md has its commands, and they are run",
    "dbus.md": "orders, whose effects other tests look at; and one that never ends",
    "develop.md": "make's own targets, of which this is one",
    "first-hour.md": "a simulation, run by tests/integration/cli/test_simulate.py",
    "install.md": "fetches from the internet, and sums of what was fetched",
    "jobs.md": "destroys the key (tests/system/test_jobs.py does)",
    "operate.md": "orders (as above), and simulations (as those of first-hour.md)",
    "performance.md": "minutes, or a card",
    "proxy.md": "run by tests/integration/test_proxy_documentation.py on the files above them",
    "thermal-h200.md": "a card",
    "tuning.md": "fetches from the internet",
}
# What a reader sees, not what is typed.
SHOWN = {"", "text"}


def blocks() -> Iterator[tuple[str, str, str]]:
    """Page, language and text of each."""
    for file in sorted(DOCS.glob("*.md")):
        for language, text in BLOCK.findall(file.read_text(encoding="utf-8")):
            yield file.name, language, text


def test_every_block_has_who_runs_it() -> None:
    found = {(page, language) for page, language, _ in blocks() if language not in SHOWN}
    special = {each for each in found if each[1] not in (*EVERYWHERE, "console")}
    assert special == set(ON_PAGES)
    assert {page for page, language in found if language == "console"} == set(CONSOLE)


@pytest.mark.parametrize(("page", "language"), sorted(ON_PAGES))
def test_who_runs_a_pages_blocks_reads_them(page: str, language: str) -> None:
    source = (ROOT / ON_PAGES[page, language]).read_text(encoding="utf-8")
    assert page in source
    assert f"{language}\\n" in source or f'"{language}"' in source or "blocks(" in source


def test_pages_with_commands_are_among_those_that_the_node_runs() -> None:
    pages = {page for page, language, _ in blocks() if language == "sh"}
    tests = ("test_docs.py", "test_tuning.py")
    source = "".join((ROOT / "tests/system" / name).read_text(encoding="utf-8") for name in tests)
    assert {page for page in pages if f'"{page}"' not in source} == set()


TOML = [(page, text) for page, language, text in blocks() if language == "toml"]


@pytest.mark.parametrize(("page", "text"), TOML)
def test_every_configuration_block_is_valid(page: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "gpuwarden.toml"
    file.write_text(text, encoding="utf-8")
    load_configuration(file, tmp_path / "conf.d")  # it raises with every problem


def test_the_tuned_profile_of_ones_own_builds_on_one_of_ours() -> None:
    (text,) = [
        text for page, language, text in blocks() if (page, language) == ("tuning.md", "ini")
    ]
    (base,) = re.findall(r"^include=(\S+)$", text, re.MULTILINE)
    assert (ROOT / "packaging" / "tuned" / base / "tuned.conf").is_file()


def test_prometheus_is_sent_to_the_ports_of_the_node() -> None:
    (text,) = [
        text for page, language, text in blocks() if (page, language) == ("prometheus.md", "yaml")
    ]
    for unit in ("gateway", "metrics"):
        socket = (ROOT / f"packaging/systemd/medgemma-{unit}.socket").read_text(encoding="utf-8")
        (address,) = re.findall(r"^ListenStream=(\S+)$", socket, re.MULTILINE)
        assert f'"{address}"' in text


def test_the_drop_in_for_another_address_sets_what_the_socket_has() -> None:
    (text,) = [
        text for page, language, text in blocks() if (page, language) == ("prometheus.md", "ini")
    ]
    assert text.startswith("[Socket]\n")
    keys = {line.partition("=")[0] for line in text.splitlines()[1:]}
    assert keys == {"ListenStream", "FreeBind", "IPAddressDeny", "IPAddressAllow"}
