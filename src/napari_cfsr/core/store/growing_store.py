"""A store that grows: written shard by shard, resumable, and not an image until it is complete.

Until then its groups are only marked as incomplete: the metadata that make them OME-Zarr are
written last, so that no program takes a partial image for a complete one. A journal in the store
lists the finished shards; a shard is entered once its files are in place, and each file is written
whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from dask.base import is_dask_collection
from numpy.typing import NDArray
from zarr import Array as ZarrArray
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore

from napari_cfsr.core.io import KEY, UNFINISHED, atomic_write, is_empty, read_store_metadata
from napari_cfsr.core.store.layout import LevelShape, ShardIndex, halved, plan_layout
from napari_cfsr.core.upscale import BlockPlan
from napari_cfsr.errors import FileFormatError, OptionError

Array = NDArray[Any]

FORMAT = 1  # of the metadata of an unfinished store
JOURNAL = ".napari_cfsr_done"
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def stores_read(image: Any) -> list[Path]:
    """The stores on disk that hold the pixels of a zarr array, or of a dask array over them."""
    found = [image]
    if is_dask_collection(image):
        for layer in image.__dask_graph__().layers.values():
            # dask keeps the source in a layer of its own, or with the operation on it
            found += list(layer.values()) if len(layer) == 1 else []
            found += [held for held, _ in getattr(layer, "indices", ())]
    stores = [array.store for array in found if isinstance(array, ZarrArray)]
    # remote stores have a path, too, but not an absolute one
    paths = [Path(str(getattr(s, "root", "") or getattr(s, "path", ""))) for s in stores]
    return [path for path in paths if path.is_absolute()]


def remove_store(path: Path) -> None:
    """Remove a zarr store to make room for another; raises `OptionError` for anything else."""
    if is_empty(path):
        return
    marks = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
    if path.is_symlink() or not path.is_dir() or not any((path / m).is_file() for m in marks):
        raise OptionError(f"expected a zarr store to replace, got something else: {path}")
    shutil.rmtree(path)


@contextlib.contextmanager
def writing(path: Path, kept: str = "") -> Iterator[None]:
    """Turn errors of the file system into `FileFormatError`; `kept` is added for a full disk."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in FULL:
            reason = f"the disk is full{kept}"
        raise FileFormatError(f"{path}: can't be written ({reason})") from error


@dataclass(eq=False)
class GrowingStore:
    """A store that is being written."""

    path: Path
    blocks: BlockPlan
    # the `ome` attribute of each output, which makes it OME-Zarr; needed to create or finish it
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.layout, self.specs = plan_layout(self.blocks), self.blocks.specs
        self.groups = {  # the store itself, or a group in it for each of several outputs
            name: self.path / name if len(self.specs) > 1 else self.path for name in self.specs
        }
        self.arrays: dict[tuple[str, int], Any] = {}
        self.done: set[ShardIndex] = set()  # what is written

    def create(self, metadata: Mapping[str, Any]) -> None:
        """Create the groups and arrays, without pixels."""
        self.path.mkdir(parents=True, exist_ok=True)
        several = {"outputs": list(self.specs)}
        own = several if len(self.specs) > 1 else self._output_metadata(*self.specs)
        self._group(self.path, {**metadata, **own})
        self.open()

    def resume(self) -> None:
        """Open an unfinished store: find out what is written."""
        for leftover in self.path.rglob(f"*{UNFINISHED}"):
            leftover.unlink()
        self.open()
        self.done = {shard for shard in self._journal() if self.has_files(shard)}
        # rewritten, since the last line may have been cut off
        with atomic_write(self.path / JOURNAL, overwrite=True) as file:
            file.write("".join(_line(shard) for shard in sorted(self.done)).encode("ascii"))

    def _output_metadata(self, name: str) -> dict[str, Any]:
        """What readers need to show an output while it grows."""
        return {"output": name, "axes": self.layout.axes, "ome": self.images[name]}

    def _group(self, path: Path, metadata: Mapping[str, Any]) -> None:
        attributes = {KEY: {**metadata, "complete": False, "format": FORMAT}}
        zarr.create_group(LocalStore(path), zarr_format=3, attributes=attributes)

    def open(self) -> None:
        """Open all arrays; create those that do not exist yet."""
        for name, group in self.groups.items():
            if group != self.path and read_store_metadata(group) is None:
                self._group(group, self._output_metadata(name))
            for level in range(len(self.layout.sizes)):
                self.arrays[name, level] = self._array(name, level)

    def _array(self, name: str, level: int) -> Any:
        folder = self.groups[name] / str(level)
        if (folder / "zarr.json").is_file():
            return zarr.open_array(LocalStore(folder), mode="r+")
        form = self.form(name, level)
        return zarr.create_array(
            LocalStore(folder),
            shape=form.shape,
            dtype=self.specs[name][1],
            chunks=form.chunks,
            shards=None if form.shards == form.chunks else form.shards,
            compressors=BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
            fill_value=0,
            dimension_names=["c" if a == "S" else a.lower() for a in self.layout.axes],
            # else a black shard would have no file, as one that is not written yet
            config={"write_empty_chunks": True},
        )

    def form(self, name: str, level: int) -> LevelShape:
        return self.layout.level_shape(self.specs[name][0], level)

    # journal

    def _journal(self) -> Iterator[ShardIndex]:
        with contextlib.suppress(FileNotFoundError):
            for line in (self.path / JOURNAL).read_text("ascii").splitlines(keepends=True):
                if line.endswith("\n"):  # else cut off when the process was killed
                    level, *index = (int(word) for word in line.split())
                    yield ShardIndex(level, tuple(index))

    def has_files(self, shard: ShardIndex) -> bool:
        """Whether the files of a shard exist: after a power cut they need not."""
        where = (str(shard.level), "c", *(str(i) for i in shard.index))
        files = [group.joinpath(*where) for group in self.groups.values()]
        return all(file.is_file() and file.stat().st_size for file in files)

    def enter(self, shard: ShardIndex) -> None:
        """Enter a written shard in the journal."""
        with (self.path / JOURNAL).open("a", encoding="ascii") as journal:
            journal.write(_line(shard))
            journal.flush()
            os.fsync(journal.fileno())
        self.done.add(shard)

    # pixels

    def write_block(self, shard: ShardIndex, outputs: Mapping[str, Array]) -> None:
        """Write the outputs of one block, axes in the order of the image."""
        for name, values in outputs.items():
            where = self.layout.where(shard, self.form(name, 0))
            self.arrays[name, 0][where] = values.transpose(self.layout.order)

    def write_level(self, shard: ShardIndex) -> None:
        """Write one shard of a higher level from the level before."""
        for name in self.specs:
            form = self.form(name, shard.level)
            where = self.layout.where(shard, form)
            self.arrays[name, shard.level][where] = self._reduced(name, shard.level, form, where)

    def _reduced(self, name: str, level: int, form: LevelShape, where: tuple[slice, ...]) -> Array:
        """The mean of 2x2 pixels of the level before; a row of chunks at a time is in memory."""
        source = self.arrays[name, level - 1]
        *planes, rows, columns = where
        height, width = source.shape[-2:]
        alpha = self.blocks.axes.has_alpha and name != "difference"
        samples = self.layout.axes.index("S") if alpha else None
        result = np.empty([s.stop - s.start for s in where], source.dtype)
        for top in range(rows.start, rows.stop, form.chunks[-2]):
            bottom = min(top + form.chunks[-2], rows.stop)
            above = (
                *planes,
                slice(2 * top, min(2 * bottom, height)),
                slice(2 * columns.start, min(2 * columns.stop, width)),
            )
            band = halved(np.asarray(source[above]), samples)
            result[..., top - rows.start : bottom - rows.start, :] = band
        return result

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write the metadata that make it OME-Zarr; `record` is its provenance, in plain values."""
        metadata = {"complete": True, "format": FORMAT, "axes": self.layout.axes, "record": record}
        for name, group in self.groups.items():
            _put(group, {"ome": self.images[name], KEY: {**metadata, "output": name}})
        if len(self.specs) > 1:
            _put(self.path, {KEY: {**metadata, "outputs": list(self.specs)}})
        (self.path / JOURNAL).unlink(missing_ok=True)


def _line(shard: ShardIndex) -> str:
    """A line of the journal."""
    return " ".join(str(i) for i in (shard.level, *shard.index)) + "\n"


def _put(path: Path, attributes: dict[str, Any]) -> None:
    """Replace all attributes of a group."""
    zarr.open_group(LocalStore(path), mode="r+").attrs.put(attributes)
