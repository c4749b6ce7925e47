# SPDX-License-Identifier: Apache-2.0
"""[tuning]: off until somebody wants it, and profiles by names that tuned could have."""

from pathlib import Path

import pytest

from gpuwarden.config import Configuration, ConfigurationError, load_configuration
from gpuwarden.config.rules import Rule, profiles_are_known

KNOWN = {"balanced", "gpuwarden-day", "gpuwarden-night"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gpuwarden.toml"


def check(file: Path, text: str, *rules: Rule) -> str:
    file.write_text(text, encoding="utf-8")
    try:
        load_configuration(file, None, rules)
    except ConfigurationError as error:
        return str(error)
    return ""


def test_nothing_is_tuned_unasked() -> None:
    assert Configuration().tuning.enabled is False


@pytest.mark.parametrize("name", ["balanced", "x", "a.b_c-d", "9lives", "A" * 128])
def test_names_that_tuned_could_have_are_taken(file: Path, name: str) -> None:
    assert check(file, f"[tuning]\nday_profile = '{name}'\n") == ""


@pytest.mark.parametrize(
    "name", ["", "-x", ".x", "_x", "a b", "../x", "a/b", "ü", "x\\n", "A" * 129]
)
def test_names_that_tuned_could_not_have_are_refused(file: Path, name: str) -> None:
    problem = check(file, f'[tuning]\nnight_profile = "{name}"\n')
    assert problem.startswith(f"{file}:2: tuning.night_profile: found ")
    assert "`tuned-adm list`" in problem


def test_a_profile_that_tuned_does_not_know_is_a_problem(file: Path) -> None:
    text = "[tuning]\nenabled = true\nday_profile = 'gpuwarden-dya'\n"
    assert check(file, text, profiles_are_known(KNOWN)) == (
        f'{file}:3: tuning.day_profile: found "gpuwarden-dya", which is no profile that tuned '
        "knows; did you mean gpuwarden-day?; allowed: one that `tuned-adm list` names"
    )


def test_one_that_is_written_down_is_looked_at_before_it_is_wanted(file: Path) -> None:
    problem = check(file, "[tuning]\nnight_profile = 'quux'\n", profiles_are_known(KNOWN))
    assert f'{file}:2: tuning.night_profile: found "quux"' in problem


def test_the_defaults_are_looked_at_where_they_are_wanted(file: Path) -> None:
    rule = profiles_are_known({"balanced"})
    assert check(file, "", rule) == ""
    assert "tuning.day_profile" in check(file, "[tuning]\nenabled = true\n", rule)
