# SPDX-License-Identifier: Apache-2.0
"""The profiles that the package ships: where tuned looks, and each setting with its reason."""

from pathlib import Path

import pytest

from gpuwarden.config.tuning import TuningSettings

ROOT = Path(__file__).parents[3]
PROFILES = sorted((ROOT / "packaging" / "tuned").glob("*/tuned.conf"))
# Debian 12's tuned (2.20) and Debian 13's (2.25).
FOLDERS = ("usr/lib/tuned", "usr/lib/tuned/profiles")


def lines(profile: Path) -> list[str]:
    return [line for line in profile.read_text(encoding="utf-8").splitlines() if line]


def test_the_default_profiles_are_shipped_to_where_either_tuned_looks() -> None:
    defaults = TuningSettings()
    shipped = [profile.parent.name for profile in PROFILES]
    assert sorted((defaults.day_profile, defaults.night_profile)) == shipped
    install = (ROOT / "packaging" / "debian" / "gpuwarden.install").read_text().splitlines()
    for folder in FOLDERS:
        assert f"packaging/tuned/* {folder}" in install


@pytest.mark.parametrize("profile", PROFILES, ids=lambda file: str(file.parent.name))
def test_every_group_of_settings_has_its_reason(profile: Path) -> None:
    explained = False
    for line in lines(profile):
        if line.startswith("["):
            explained = line == "[main]"
        elif line.startswith("#"):
            explained = True
        elif not line.startswith(("replace=", "type=")):
            assert explained, f"{profile.parent.name}: no reason above {line}"


def test_the_night_is_the_day_but_for_what_backups_need() -> None:
    by_name = {profile.parent.name: lines(profile) for profile in PROFILES}
    assert "include=gpuwarden-day" in by_name["gpuwarden-night"]
    keys = {
        name: {line.split("=")[0] for line in told if not line.startswith(("#", "["))}
        for name, told in by_name.items()
    }
    assert keys["gpuwarden-night"] <= keys["gpuwarden-day"]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda file: str(file.parent.name))
def test_no_other_disks_than_nvme_are_touched(profile: Path) -> None:
    for line in lines(profile):
        if "/sys/block/" in line and not line.startswith("#"):
            assert line.startswith("/sys/block/nvme*n[0-9]*/queue/")


@pytest.mark.parametrize("profile", PROFILES, ids=lambda file: str(file.parent.name))
def test_no_process_is_given_a_priority_or_a_cpu(profile: Path) -> None:
    told = "\n".join(line for line in lines(profile) if not line.startswith("#"))
    for word in ("group.", "isolated_cores", "affinity", "cmdline", "[script]", "[bootloader]"):
        assert word not in told
