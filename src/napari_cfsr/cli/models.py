"""`napari-cfsr models`: list, fetch and import weights; show and manage refiners."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from napari_cfsr.cli.common import download_bar, say
from napari_cfsr.core import weights  # its names are loaded when they are used
from napari_cfsr.errors import ArchitectureError, CFSRError, ScaleError

T = TypeVar("T")


def add_models(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(required=True, metavar="ACTION", title="actions")

    def action(name: str, run: Callable[[argparse.Namespace], int], about: str) -> Any:
        """The `add_argument` of a new action."""
        parser = actions.add_parser(name, help=about)
        parser.set_defaults(run=run)
        return parser.add_argument

    add = action("list", run_models_list, "what is on this machine")
    add("--json", action="store_true")
    add = action("fetch", run_models_fetch, "download the official weights")
    add("--scale", type=int, choices=weights.SCALES, nargs="+", default=[2, 3, 4])
    add = action("import", run_models_import, "check weights files and keep copies of them")
    add("files", nargs="+", type=Path)
    add("--overwrite", action="store_true")
    add = action("show", run_models_show, "what is known about a refiner")
    add("name", help="a name, or a file")
    add("--json", action="store_true")
    add = action("rename", run_models_rename, "rename one of your refiners")
    add("name")
    add("new")
    add = action("delete", run_models_delete, "delete refiners of yours")
    add("names", nargs="+", metavar="name")
    add = action("export", run_models_export, "copy a refiner to a file")
    add("name")
    add("file", type=Path, help="a .safetensors file, or a folder")
    add("--overwrite", action="store_true", help="replace an existing file")
    add = action("path", run_models_path, "print the path of a backbone, or the folders")
    add("--scale", type=int, choices=weights.SCALES)
    add("--backbone", default="auto")


def models_table() -> list[dict[str, Any]]:
    """What is on this machine, one record each."""
    rows: list[dict[str, Any]] = []
    for scale in weights.SCALES:
        official, bundled = weights.official_path(scale), weights.bundled_path(scale)
        row = {"what": "backbone", "kind": "official", "name": weights.official_name(scale)}
        rows.append({**row, "scale": scale, "path": official and str(official)})
        if bundled is not None:
            row = {"what": "backbone", "kind": "bundled", "name": bundled.name}
            rows.append({**row, "scale": scale, "path": str(bundled)})
    for path in weights.imported_backbones():
        row = {"what": "backbone", "kind": "imported", "name": path.stem}
        rows.append({**row, "scale": None, "path": str(path)})
    for path, kind, card in weights.refiner_cards():
        row = {"what": "refiner", "kind": kind, "name": path.stem}
        about = {"description": card.description, "gain": card.gain, "placement": card.placement}
        rows.append({**row, "scale": card.scale or None, "path": str(path), **about})
    return rows


def run_models_list(options: argparse.Namespace) -> int:
    rows = models_table()
    if options.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        scale = f"x{row['scale']}" if row["scale"] else "  "
        where = row["path"] or "not on this machine: 'napari-cfsr models fetch'"
        about = row.get("description", "")
        if row.get("gain") is not None:
            about += f" ({row['gain']:+.4f} dB)"
        print(f"{row['what']:8} {row['kind']:8} {scale} {row['name']:28} {where}  {about}".rstrip())
    return 0


def run_models_fetch(options: argparse.Namespace) -> int:
    for scale in options.scale:
        with download_bar() as progress:
            file, _ = weights.find_backbone(scale, "official", progress=progress)
        print(f"x{scale} {file.path}")
    return 0


def run_models_import(options: argparse.Namespace) -> int:
    return _each(options.files, lambda path: f"{path} -> {import_weights(path, options.overwrite)}")


def _each(items: Iterable[T], done: Callable[[T], str]) -> int:
    """Print what was done with each; a fault with one does not stop the others."""
    faults = 0
    for item in items:
        try:
            print(done(item))
        except CFSRError as error:
            say(str(error))
            faults += 1
    return 2 if faults else 0


def import_weights(path: Path, overwrite: bool) -> Path:
    """Check that a file is a backbone or a refiner, and keep a copy of it."""
    from napari_cfsr.core.network import config_of

    state = weights.load_state(path)
    if "body.0.weight" in state:
        return weights.import_refiner(path, overwrite)
    try:
        scale = config_of(state).scale
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise ArchitectureError(
            f"{path} holds neither a CFSR backbone nor a refiner ({len(state)} tensors, the first "
            f"is {next(iter(state))!r})"
        ) from error
    weights.load_backbone(weights.WeightsFile(path, weights.sha256_of(path), "file"), scale)
    if scale not in weights.SCALES:
        raise ScaleError(f"expected weights for scale 2, 3 or 4, got {path} for x{scale}")
    return weights.import_file(path, "backbones", overwrite)


def run_models_show(options: argparse.Namespace) -> int:
    """Print the card of a refiner, by name or in a file."""
    file = weights.file_named(options.name)
    path, kind = (file, "file") if file else weights.find_refiner_file(options.name)
    card = weights.read_refiner_card(path)
    if options.json:
        about = {"name": path.stem, "kind": kind, "path": str(path), **vars(card)}
        print(json.dumps({**about, "sha256": weights.sha256_of(path)}))
        return 0
    print(f"{path.stem} ({kind}, {path})")
    for line in weights.describe_card(card):
        print(line)
    return 0


def run_models_rename(options: argparse.Namespace) -> int:
    print(f"{options.name} -> {weights.rename_refiner(options.name, options.new)}")
    return 0


def run_models_delete(options: argparse.Namespace) -> int:
    return _each(options.names, lambda name: f"deleted {weights.delete_refiner(name)}")


def run_models_export(options: argparse.Namespace) -> int:
    path = weights.export_refiner(options.name, options.file, options.overwrite)
    print(f"{options.name} -> {path}")
    return 0


def run_models_path(options: argparse.Namespace) -> int:
    if options.scale is None:
        print(weights.cache_folder())
        print(weights.data_folder())
        return 0
    file, _ = weights.find_backbone(options.scale, options.backbone, download=False)
    print(file.path)
    return 0
