# SPDX-License-Identifier: Apache-2.0
"""The journal's own tool takes the catalogue, entry by entry, as it stands in the file."""

import shutil
import subprocess
from pathlib import Path

from tools.events_table import CATALOGUE, read


def journalctl(root: Path, option: str) -> str:
    done = subprocess.run(
        ["journalctl", f"--root={root}", option], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout


def test_the_catalogue_is_taken_as_it_is_written(tmp_path: Path) -> None:
    for folder in ("usr/lib/systemd/catalog", "var/lib/systemd/catalog"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(CATALOGUE, tmp_path / "usr/lib/systemd/catalog")
    journalctl(tmp_path, "--update-catalog")

    written = read(CATALOGUE.read_text(encoding="ascii"))
    taken = {each.message_id: each for each in read(journalctl(tmp_path, "--dump-catalog"))}
    assert taken == {each.message_id: each for each in written}
