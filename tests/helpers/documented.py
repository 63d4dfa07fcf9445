"""The commands and code that README, docs and contribution guide show, and small files for them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for page in (
        ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").glob("*.md")
    )
    if page.name != "changelog.md"  # it quotes older versions
)  # fmt: skip
PROGRAMS = (
    "bash", "cd", "conda", "dask", "git", "lint-imports", "LIBGL_ALWAYS_SOFTWARE=1", "mkdocs",
    "mypy", "napari", "napari-cfsr", "npe2", "pip", "pre-commit", "pytest", "python", "python3",
    "ruff", "source", "sudo", "towncrier", "tox", "xvfb-run",
)  # fmt: skip
FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
SHELLS = ("sh", "bash", "console", "powershell")


@dataclass(frozen=True)
class Snippet:
    """A command or a piece of Python on a page."""

    page: str  # path from the root of the repository
    text: str  # a single line for commands
    python: bool = False


def snippets(page: Path) -> list[Snippet]:
    """All commands and Python of a page, in its order."""
    name = page.relative_to(ROOT).as_posix()
    text = page.read_text("utf-8")
    found: list[tuple[int, Snippet]] = []
    for match in FENCE.finditer(text):
        language, body = match.groups()
        if language == "python":
            found.append((match.start(), Snippet(name, body, python=True)))
        elif language in SHELLS:
            found += [(match.start(), Snippet(name, line)) for line in command_lines(body)]
        # not to find what is inside again
        text = text[: match.start()] + " " * len(match[0]) + text[match.end() :]
    for match in re.finditer(r"`([^`]+)`", text):
        line = " ".join(match[1].split())
        if line.split()[0] in PROGRAMS and " " in line:
            found.append((match.start(), Snippet(name, line)))
    return [snippet for _, snippet in sorted(found, key=lambda pair: pair[0])]


def command_lines(block: str) -> list[str]:
    """The commands of a block, without prompts and comments."""
    joined = re.sub(r"\\\n\s*", "", block)
    lines = (re.sub(r"\s+#.*", "", line).strip() for line in joined.splitlines())
    lines = (line.removeprefix("$ ") for line in lines if not line.startswith("#"))
    return [part.strip() for line in lines if line for part in line.split("&&")]


def photo(height: int, width: int) -> np.ndarray:
    """Part of a real photo, [y,x,3] of 8 bits."""
    whole = _astronaut()
    tiled = np.tile(whole, (-(-height // 512), -(-width // whole.shape[1]), 1))
    return np.ascontiguousarray(tiled[:height, :width])


def nuclei(height: int, width: int, first: int = 0) -> np.ndarray:
    """Part of the sample of nuclei, [y,x] of 12 bits in 16."""
    return np.ascontiguousarray(np.roll(_sharp_nuclei(), -first, axis=0)[:height, :width])


@lru_cache
def _astronaut() -> np.ndarray:
    from skimage import data

    return data.astronaut()[:, 60:]


@lru_cache
def _sharp_nuclei() -> np.ndarray:
    from napari_cfsr.layers.sample_data import low_light

    return np.tile(low_light()[0][0], (1, 2))


def make_files(folder: Path) -> None:
    """Make a small version of every file that a page names."""
    from napari_cfsr.core.image.degradation import degrade
    from napari_cfsr.core.image.resize import imresize

    def write(name: str, pixels: np.ndarray, **arguments: object) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".tif":
            tifffile.imwrite(path, pixels, **arguments)
        else:
            Image.fromarray(pixels).save(path)

    write("image.png", photo(24, 32))
    write("photo.jpg", photo(24, 32))
    write("photo.png", photo(536, 112))
    write("stack.ome.tif", np.stack([nuclei(24, 32)] * 2), metadata={"axes": "ZYX"})
    write("slide.tif", photo(64, 48), photometric="rgb")
    for name in ("folder/a.png", "scans/1.png", "scans/2.png"):
        write(name, photo(24, 24))
    for i in range(8):
        write(f"images/{i}.tif", nuclei(96, 96, 64 * i))
        write(f"nuclei/{i}.tif", nuclei(96, 96, 64 * i))
        write(f"photos/{i}.png", photo(128, 128)[:, :: 1 if i % 2 else -1])
        clean = nuclei(96, 96, 64 * i) / np.float32(4095)
        lr = degrade(clean, 2, photons=50, read_noise=0.01, seed=i)
        write(f"LR/{i}.tif", np.rint(lr * 4095).astype(np.uint16))
        write(f"HR/{i}.tif", nuclei(96, 96, 64 * i))
    for i in range(2):
        glow = 0.2 + 0.8 * nuclei(144, 144, 64 * i) / np.float32(4095)
        dim = degrade(glow, 2, photons=30, seed=i)
        write(f"dim/{i}.tif", np.rint(dim * 4095).astype(np.uint16))
        write(f"Kodak24/{i}.png", photo(96, 96))
    write("new.tif", nuclei(24, 32))
    write("lr.tif", nuclei(100, 80)[::2, ::2])
    write("hr.tif", nuclei(100, 80))
    write("hr.png", photo(300, 400))
    write("lr.png", imresize(photo(300, 400), 1 / 4))
    for name in ("Set5", "Set14", "B100"):
        for image in ("baby", "butterfly"):
            for data in ("DATA", "DIR", "data"):
                write(f"{data}/{name}/{image}.png", photo(96, 96))
    write("DATA/validation/Kodak24/kodim19.png", photo(528, 112))
    write("DATA/validation/Kodak24/kodim05.png", photo(432, 464))
    write("DATA/validation/Kodak24/kodim23.png", photo(288, 240))
    write("noisy.png", photo(288, 240)[::4, ::4])
    write("nuclei.tif", nuclei(280, 400))
    write("noisy.tif", nuclei(280, 400)[::2, ::2])
    write("tissue.png", photo(296, 336))
    write("cat.png", photo(216, 216))
