# SPDX-License-Identifier: Apache-2.0
"""The documentation as pages: built strictly, and whole without network, server and script."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tools.build_docs import ROOT, DocumentationError, build_docs

# What a browser fetches or runs, and by which attribute.
LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "audio": "src",
    "video": "src",
    "link": "href",
    "object": "data",
    "embed": "src",
}


class Page(HTMLParser):
    """What a page loads, where it leads, what in it can be led to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if (attribute := LOADED.get(tag)) and attribute in given:
            self.loaded.append(given[attribute])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if "id" in given:
            self.names.add(given["id"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build_docs(ROOT, folder)  # strictly: it raises for a warning
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}


def test_every_document_is_a_page_and_openapi_lies_beside_them(site: Path) -> None:
    documents = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert documents <= {path.stem for path in site.glob("*.html")}
    assert (site / "openapi.json").is_file()


def test_pages_that_units_and_messages_name_are_there(site: Path) -> None:
    named = {
        (file, page)
        for file in (ROOT / "packaging").rglob("*")
        if file.is_file()
        for page in re.findall(
            r"/usr/share/doc/gpuwarden/([\w./-]+\.\w+)",
            file.read_text(encoding="utf-8", errors="replace"),
        )
    }
    assert len(named) > 20
    missing = {
        (file.name, page)
        for file, page in named
        if not page.startswith("docs/") and not (site / page.removeprefix("html/")).exists()
    }
    assert missing == set()


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    for file, page in pages.items():
        for target in page.loaded:
            parts = urlsplit(target)
            assert not parts.scheme and not parts.netloc, f"{file.name} loads {target}"
            if file.name != "404.html":  # which a server alone shows, from its root
                assert (file.parent / unquote(parts.path)).exists(), f"{file.name}: {target}"
    for sheet in site.rglob("*.css"):
        found = re.findall(r"url\(['\"]?(?!data:|#)([^)'\"]+)", sheet.read_text(encoding="utf-8"))
        assert found == [], sheet
        assert "@import" not in sheet.read_text(encoding="utf-8")


def test_every_link_between_the_pages_leads_to_its_place(pages: dict[Path, Page]) -> None:
    seen = 0
    for file, page in pages.items():
        for target in page.links if file.name != "404.html" else ():
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            there = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            assert there.is_file(), f"{file.name}: {target}"
            if parts.fragment and there in pages:
                assert unquote(parts.fragment) in pages[there].names, f"{file.name}: {target}"
            seen += 1
    assert seen > 1000


def test_tables_and_lists_are_no_plain_text(pages: dict[Path, Page], site: Path) -> None:
    for file in pages:
        text = re.sub(r"<(pre|code)\b.*?</\1>", "", file.read_text(encoding="utf-8"), flags=re.S)
        assert not re.search(r"<p>\s*\||^\| |^- \S", text, re.MULTILINE), file.name


def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path) -> None:
    for name in ("docs", "packaging/documentation"):
        (tmp_path / name).mkdir(parents=True)
    configuration = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[0]
    (tmp_path / "mkdocs.yml").write_text(configuration, encoding="utf-8")
    (tmp_path / "docs" / "index.md").write_text("# Welcome\n\n[gone](index.md#nowhere)\n")

    with pytest.raises(DocumentationError, match="nowhere"):
        build_docs(tmp_path, tmp_path / "site")
