"""What the site shows of the code; no page and no name is missing from it."""

from __future__ import annotations

import argparse
import importlib.util
import re
from types import ModuleType

import pytest
import yaml

import napari_cfsr
from napari_cfsr.cli import parser
from tests.helpers.documented import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "site_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Loader(yaml.SafeLoader):
    """Reads the configuration of mkdocs, which names a Python function."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda loader, suffix, node: suffix)


def pages_of(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in pages_of(part)]  # type: ignore[attr-defined]


def test_every_page_is_in_the_menu_once() -> None:
    config = yaml.load((ROOT / ".mkdocs.yml").read_text("utf-8"), _Loader)
    listed = pages_of(config["nav"])
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    decisions = {name for name in pages if name.startswith("decisions/0")}
    assert sorted(listed) == sorted(pages - decisions)


def test_every_public_name_is_in_the_reference() -> None:
    text = (DOCS / "reference" / "python.md").read_text("utf-8")
    named = re.findall(r"^::: napari_cfsr\.(\w+)$", text, re.MULTILINE)
    assert sorted([*named, "__version__"]) == sorted(napari_cfsr.__all__)


def test_every_command_and_option_is_in_the_reference(hooks: ModuleType) -> None:
    page = (DOCS / "reference" / "command-line.md").read_text("utf-8")
    text = hooks.on_page_markdown(page)
    assert "<!-- commands -->" not in text
    found = dict(hooks.parsers(parser()))
    assert {"napari-cfsr upscale", "napari-cfsr train", "napari-cfsr models list"} < found.keys()
    for path, one in found.items():
        _, _, section = text.partition(f"## `{path}`\n")
        section = section.partition("\n## ")[0]
        assert section
        for action in one._actions:
            if not isinstance(action, argparse._HelpAction):
                for name in action.option_strings or (action.metavar or action.dest,):
                    assert f"`{name}" in section, (path, name)
    assert "| `--scale` `2,3,4` | default: `4` |" in text


def test_every_decision_is_listed(hooks: ModuleType) -> None:
    text = hooks.on_page_markdown((DOCS / "decisions" / "index.md").read_text("utf-8"))
    files = sorted(path.name for path in (DOCS / "decisions").glob("0*.md"))
    assert re.findall(r"\]\((0[^)]*)\)", text) == files
    assert "1. [For napari, the model runs in a process of its own](0001-" in text


def test_unreleased_changes_are_shown(hooks: ModuleType) -> None:
    text = hooks.on_page_markdown((DOCS / "changelog.md").read_text("utf-8"))
    fragments = [p for p in (ROOT / "changelog.d").glob("*.md") if p.name != "README.md"]
    for path in fragments:
        assert f"- {path.read_text('utf-8').strip()}" in text
    assert ("## Not released yet" in text) == bool(fragments)
