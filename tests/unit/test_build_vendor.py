# SPDX-License-Identifier: Apache-2.0
import zipfile
from pathlib import Path

import pytest

from tools.build_vendor import VendorError, check_complete, merge, read_lock, third_party_pages

LOCK = """\
# resolved by a tool
alpha==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via gpuwarden
beta.core==2.0 \\
    --hash=sha256:cc
"""


def wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense: MIT\n\n"
    with zipfile.ZipFile(path, "w") as archive:
        for item, content in files.items():
            archive.writestr(item, content)
        archive.writestr(f"{name}-{version}.dist-info/METADATA", metadata)
        archive.writestr(f"{name}-{version}.dist-info/RECORD", str(path))
    return path


def test_lock_is_read_with_names_normalized_and_hashes_kept() -> None:
    alpha, beta = read_lock(LOCK)

    assert (alpha.name, alpha.version) == ("alpha", "1.0")
    assert (beta.name, beta.version) == ("beta-core", "2.0")
    assert "sha256:aa" in alpha.text
    assert "sha256:bb" in alpha.text
    assert "sha256:cc" not in alpha.text


@pytest.mark.parametrize("line", ["alpha==1.0", "alpha>=1.0 --hash=sha256:aa", "alpha"])
def test_lock_line_without_exact_version_and_hash_is_refused(line: str) -> None:
    with pytest.raises(VendorError, match="alpha"):
        read_lock(line + "\n")


def test_extension_modules_of_all_pythons_stand_side_by_side(tmp_path: Path) -> None:
    wheels = {
        python: [
            wheel(
                tmp_path / python,
                "alpha",
                "1.0",
                {"alpha/__init__.py": "same", f"alpha/fast.cpython-{abi}-x86_64-linux-gnu.so": abi},
            )
        ]
        for python, abi in (("3.11", "311"), ("3.13", "313"))
    }

    merged = merge(wheels)

    assert merged.site["alpha/fast.cpython-311-x86_64-linux-gnu.so"] == b"311"
    assert merged.site["alpha/fast.cpython-313-x86_64-linux-gnu.so"] == b"313"
    assert merged.site["alpha/__init__.py"] == b"same"
    assert not any(path.endswith("RECORD") for path in merged.site)


def test_file_that_differs_between_pythons_stops_the_build(tmp_path: Path) -> None:
    wheels = {
        python: [wheel(tmp_path / python, "alpha", "1.0", {"alpha/__init__.py": python})]
        for python in ("3.11", "3.13")
    }

    with pytest.raises(VendorError, match=r"alpha/__init__\.py"):
        merge(wheels)


def test_versions_that_differ_between_pythons_stop_the_build(tmp_path: Path) -> None:
    wheels = {
        "3.11": [wheel(tmp_path / "a", "alpha", "1.0", {})],
        "3.13": [wheel(tmp_path / "b", "alpha", "1.1", {})],
    }

    with pytest.raises(VendorError, match=r"alpha is 1\.0 .* 1\.1"):
        merge(wheels)


def test_wheel_that_writes_elsewhere_stops_the_build(tmp_path: Path) -> None:
    wheels = {"3.11": [wheel(tmp_path, "alpha", "1.0", {"alpha-1.0.data/scripts/run": "x"})]}

    with pytest.raises(VendorError, match="scripts/run"):
        merge(wheels)


def test_wheels_that_are_not_what_the_lock_names_stop_the_build(tmp_path: Path) -> None:
    merged = merge({"3.11": [wheel(tmp_path, "alpha", "1.0", {})]})

    check_complete(read_lock(LOCK)[:1], merged)
    with pytest.raises(VendorError, match="beta-core"):
        check_complete(read_lock(LOCK), merged)


def test_licences_and_bills_of_materials_leave_the_module_path(tmp_path: Path) -> None:
    info = "alpha-1.0.dist-info"
    files = {f"{info}/licenses/LICENSE": "be kind", f"{info}/sboms/rust.json": "{}"}
    merged = merge({"3.11": [wheel(tmp_path, "alpha", "1.0", files)]})

    pages = third_party_pages(merged)

    assert list(merged.site) == [f"{info}/METADATA"]
    assert b"be kind" in pages["alpha.txt"]
    assert b"licence: MIT" in pages["README"]
    assert pages["alpha.rust.python3.11.json"] == b"{}"
