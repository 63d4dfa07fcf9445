"""Parts of pages that are generated when the site is built, so that they can't be out of date.

mkdocs calls `on_page_markdown` for each page; a line `<!-- NAME -->` is replaced by what the
function of that name returns: the command-line reference, the list of decisions, and the changes
that no release contains yet.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
KINDS = {"added": "Added", "changed": "Changed", "fixed": "Fixed"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The text of a page with its markers replaced."""
    for name, make in {
        "commands": commands,
        "decisions": decisions,
        "unreleased": unreleased,
    }.items():
        marker = f"<!-- {name} -->"
        if marker in markdown:
            markdown = markdown.replace(marker, make())
    return markdown


def commands() -> str:
    """All commands with their options, from the parsers themselves."""
    from napari_cfsr.cli import parser

    return "\n\n".join(part for path, one in parsers(parser()) for part in section(path, one))


def parsers(
    one: argparse.ArgumentParser, path: str = "napari-cfsr"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command that runs something, with its full name."""
    below = [a for a in one._actions if isinstance(a, argparse._SubParsersAction)]
    if not below:
        yield path, one
    for action in below:
        for name, command in action.choices.items():
            yield from parsers(command, f"{path} {name}")


def section(path: str, one: argparse.ArgumentParser) -> Iterator[str]:
    """Heading, description, a table of options for each group, example."""
    yield f"## `{path}`"
    words = " ".join((one.description or "").split())
    if words:
        yield words
    for group in one._action_groups:
        actions = [a for a in group._group_actions if not isinstance(a, argparse._HelpAction)]
        if not actions:
            continue
        title = group.title or ""
        if title not in ("options", "positional arguments"):
            yield f"**{title}**" + (f": {group.description}" if group.description else "")
        rows = [f"| {usage(action)} | {meaning(action)} |" for action in actions]
        yield "\n".join(["| option | meaning |", "|---|---|", *rows])
    if one.epilog:
        lines = [line.strip() for line in re.sub(r"\\\n\s*", "", one.epilog).splitlines()]
        called = [line for line in lines if line.startswith("napari-cfsr")]
        yield "```sh\n" + "\n".join(called) + "\n```"


def usage(action: argparse.Action) -> str:
    """How an option is written."""
    value = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    if action.choices is not None:
        value = ",".join(str(choice) for choice in action.choices)
    values = value if isinstance(value, str) else " ".join(value)
    if not action.option_strings:
        return f"`{values}`"
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    return names if action.nargs == 0 else f"{names} `{values}`"


def meaning(action: argparse.Action) -> str:
    """What an option does, whether it is required, and its default."""
    words = " ".join((action.help or "").replace("%%", "%").split()).replace("|", "\\|")
    required = "required" if action.required and action.option_strings else ""
    default = ""
    if action.option_strings and action.default not in (None, False, (), argparse.SUPPRESS):
        default = f"default: `{action.default}`"
    return "; ".join(part for part in (words, required, default) if part)


def decisions() -> str:
    """A numbered list of the decisions."""
    lines = []
    for path in sorted((DOCS / "decisions").glob("0*.md")):
        number, title = path.read_text("utf-8").splitlines()[0].removeprefix("# ").split(". ", 1)
        lines.append(f"{int(number)}. [{title}]({path.name})")
    return "\n".join(lines)


def unreleased() -> str:
    """The changelog fragments that no release has gathered yet."""
    folder = DOCS.parent / "changelog.d"
    parts = []
    for kind, title in KINDS.items():
        texts = [path.read_text("utf-8").strip() for path in sorted(folder.glob(f"*.{kind}*.md"))]
        if texts:
            parts.append(f"### {title}\n\n" + "\n".join(f"- {text}" for text in texts))
    return "\n\n".join(["## Not released yet", *parts] if parts else [])
