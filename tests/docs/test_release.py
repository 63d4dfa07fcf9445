"""Metadata, citation and the recipe for conda-forge agree."""

from __future__ import annotations

import re
import tomllib

import yaml

from tests.helpers.documented import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
RECIPE_TEXT = (ROOT / ".ci" / "conda" / "recipe.yaml").read_text("utf-8")
RECIPE = yaml.safe_load(RECIPE_TEXT)
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
CONDA = {"dask[array]": "dask-core", "matplotlib": "matplotlib-base", "torch": "pytorch"}


def by_name(requirements: list[str]) -> dict[str, str]:
    """Version limits by package name, without spaces and markers."""
    found = {}
    for requirement in requirements:
        match = re.fullmatch(r"([\w.-]+(?:\[\w+\])?)\s*(.*)", requirement)
        assert match, requirement
        found[match[1]] = match[2].split(";")[0].replace(" ", "")  # recipes have no markers
    return found


def test_the_recipe_needs_what_the_package_needs() -> None:
    own = by_name(PROJECT["dependencies"])
    expected = {CONDA.get(name, name): limits for name, limits in own.items()}
    found = by_name(RECIPE["requirements"]["run"])
    assert found.pop("python") == ">=${{python_min}}"
    assert RECIPE["context"]["python_min"] == PROJECT["requires-python"].removeprefix(">=")
    assert found == expected


def test_the_recipe_builds_with_what_the_package_is_built_with() -> None:
    system = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]
    host = by_name(RECIPE["requirements"]["host"])
    for name, limits in by_name(system["requires"]).items():
        assert host[name] == limits
    assert {"python", "pip"} < host.keys()


def test_the_recipe_describes_the_same_program() -> None:
    (entry,) = RECIPE["build"]["python"]["entry_points"]
    name, place = entry.split(" = ")
    assert PROJECT["scripts"] == {name: place}
    about = RECIPE["about"]
    assert about["summary"] == PROJECT["description"]
    assert about["license"] == PROJECT["license"]
    assert about["homepage"] == PROJECT["urls"]["Homepage"]
    assert about["documentation"] == PROJECT["urls"]["Documentation"]
    assert "${{ version }}" in RECIPE["source"]["url"]


def test_the_recipe_has_the_lines_to_fill_in() -> None:
    for key in ("version", "sha256"):
        assert len(re.findall(rf'(?m)^  {key}: "0[0.]*"$', RECIPE_TEXT)) == 1


def test_the_citation_is_complete_and_agrees_with_the_package() -> None:
    for key in ("cff-version", "message", "title", "authors"):  # required by the format
        assert CITATION[key]
    assert CITATION["license"] == PROJECT["license"]
    assert CITATION["repository-code"] == PROJECT["urls"]["Source"]
    assert [a["name"] for a in CITATION["authors"]] == [a["name"] for a in PROJECT["authors"]]
    (paper,) = CITATION["references"]
    assert [a["family-names"] for a in paper["authors"]] == ["Wu", "Jiang", "Jiang", "Liu"]
    for text in (paper["title"], str(paper["year"]), paper["journal"], paper["url"]):
        assert text in " ".join((ROOT / "README.md").read_text("utf-8").split())


def test_the_hub_finds_what_it_shows() -> None:
    assert "Framework :: napari" in PROJECT["classifiers"]
    expected = {"Homepage", "Documentation", "Changelog", "Issues", "Citation"}
    assert expected <= PROJECT["urls"].keys()
    assert "napari" in PROJECT["keywords"]


def test_the_changelog_has_room_for_releases() -> None:
    text = (ROOT / "docs" / "changelog.md").read_text("utf-8")
    assert text.startswith("# Changelog\n")
    assert "<!-- towncrier release notes start -->" in text


def test_issue_forms_are_forms() -> None:
    folder = ROOT / ".github" / "ISSUE_TEMPLATE"
    for path in folder.glob("*.yml"):
        form = yaml.safe_load(path.read_text("utf-8"))
        if path.name == "config.yml":
            assert all({"name", "url", "about"} == link.keys() for link in form["contact_links"])
            continue
        assert {"name", "description", "body"} <= form.keys()
        ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
        assert len(ids) == len(set(ids)) > 0
