# SPDX-License-Identifier: Apache-2.0
"""Which profiles tuned would find, on Debian 12 and on Debian 13."""

from pathlib import Path

from gpuwarden.profiles import known_profiles, tuned_is_installed


def host(root: Path, *profiles: str, configuration: str = "") -> Path:
    for file in ("usr/sbin/tuned", *(f"{profile}/tuned.conf" for profile in profiles)):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    main = root / "etc/tuned/tuned-main.conf"
    main.parent.mkdir(parents=True, exist_ok=True)
    main.write_text(configuration)
    return root


def test_a_host_without_tuned_knows_none(tmp_path: Path) -> None:
    assert not tuned_is_installed(tmp_path)
    assert known_profiles(tmp_path) == set()


def test_debian_12_keeps_them_one_folder_higher(tmp_path: Path) -> None:
    root = host(
        tmp_path,
        *("usr/lib/tuned/balanced", "usr/lib/tuned/gpuwarden-day"),
        *("usr/lib/tuned/profiles/gpuwarden-day", "etc/tuned/site"),
    )
    assert tuned_is_installed(root)
    assert known_profiles(root) == {"balanced", "gpuwarden-day", "site"}


def test_debian_13_does_not_look_where_debian_12_does(tmp_path: Path) -> None:
    root = host(
        tmp_path,
        *("usr/lib/tuned/profiles/balanced", "usr/lib/tuned/profiles/gpuwarden-day"),
        *("usr/lib/tuned/old", "etc/tuned/old", "etc/tuned/profiles/site"),
        configuration="# profile_dirs = /nowhere\n",
    )
    assert known_profiles(root) == {"balanced", "gpuwarden-day", "site"}


def test_folders_of_an_administrators_own_are_looked_into(tmp_path: Path) -> None:
    root = host(
        tmp_path,
        *("usr/lib/tuned/profiles/balanced", "srv/tuned/site"),
        configuration="daemon = 1\nprofile_dirs = /usr/lib/tuned/profiles; /srv/tuned\n",
    )
    assert known_profiles(root) == {"balanced", "site"}
