"""No broken links in README, docs and contribution guide; checked in the tree, without network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers.documented import FENCE, ROOT

DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md"), *(ROOT / ".github").rglob("*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
GITHUB = "https://github.com/napari-cfsr/napari-cfsr"
RAW = "https://raw.githubusercontent.com/napari-cfsr/napari-cfsr/main/"
SITE = "https://napari-cfsr.github.io/napari-cfsr/"
GITHUB_PAGES = re.compile(r"/(issues|pulls|releases|security|actions)?(/.*)?$")  # not files


def text_of(page: Path) -> str:
    """The text of a page, without code."""
    text = FENCE.sub("", page.read_text("utf-8"))
    return re.sub(r"`[^`]*`", "x", text)


def links(page: Path) -> list[str]:
    return LINK.findall(text_of(page))


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub and the site name them."""
    found = set()
    for heading in re.findall(r"(?m)^#+ +(.*)$", FENCE.sub("", page.read_text("utf-8"))):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        found.add(re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", words)).strip("-"))
    return found


def target(page: Path, link: str) -> tuple[Path | None, str]:
    """The file that a link leads to, None outside of this repository; and the anchor."""
    address, _, anchor = link.partition("#")
    if address.startswith(RAW):
        return ROOT / address.removeprefix(RAW), anchor
    if address.startswith(SITE):
        name = address.removeprefix(SITE).strip("/")
        places = (DOCS / f"{name or 'index'}.md", DOCS / name / "index.md")
        return next((place for place in places if place.is_file()), places[0]), anchor
    if address.startswith(GITHUB):
        rest = address.removeprefix(GITHUB)
        if GITHUB_PAGES.fullmatch(rest or "/"):
            return None, ""
        return ROOT / re.sub(r"^/(blob|tree)/main/", "", rest), anchor
    if re.match(r"[a-z]+:", address):
        return None, ""
    return (page.parent / address if address else page), anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        file, anchor = target(page, link)
        if file is None:
            continue
        assert file.exists(), link
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), link


def test_links_of_the_docs_stay_in_the_docs() -> None:
    """The site has nothing else; other files are linked by their address on GitHub."""
    for page in DOCS.rglob("*.md"):
        for link in links(page):
            if not re.match(r"[a-z]+:|#", link):
                assert (page.parent / link.partition("#")[0]).resolve().is_relative_to(DOCS), link


def test_the_readme_has_no_relative_links() -> None:
    """It is also the page on PyPI and the hub."""
    found = links(ROOT / "README.md")
    assert len(found) > 20
    assert not [link for link in found if not link.startswith("https://")]
    images = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", (ROOT / "README.md").read_text("utf-8"))
    assert images
    assert all(image.startswith(RAW) for image in images)


def test_every_picture_is_shown_somewhere() -> None:
    shown = {target(page, link)[0] for page in PAGES for link in links(page)}
    shown = {file.resolve() for file in shown if file}
    missing = [path.name for path in (DOCS / "images").rglob("*.png") if path not in shown]
    assert not missing


@pytest.mark.parametrize("link", ["nowhere.md", "index.md#nowhere", f"{GITHUB}/blob/main/x.py"])
def test_a_broken_link_is_found(link: str) -> None:
    """Guards against a check that finds nothing."""
    file, anchor = target(DOCS / "index.md", link)
    assert file is not None
    assert not file.exists() or anchor not in anchors(file)
