"""Make the gallery: figures drawn by the program, and the page that shows them.

    python docs/make_gallery.py DATA [NAME ...]

DATA holds `validation/Kodak24` (PNG), `microscopy/nuclei_dsb2018` (PNG) and `train/photos` (JPEG).
Needs the official weights; trains two refiners, which takes some minutes. With names,
only those figures are made and the page is left as it is. Writes to `docs/images/gallery` and
`docs/gallery.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shlex
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

DOCS = Path(__file__).resolve().parent
IMAGES = DOCS / "images" / "gallery"
MOST = 3_000_000  # bytes of all figures
SIZE = "--width 6 --dpi 150"

KODAK = "Kodak lossless true colour image suite, released by Eastman Kodak for unrestricted use."
NUCLEI = (
    "BBBC038v1, Broad Bioimage Benchmark Collection (J. C. Caicedo et al., Nature Methods, 2019), "
    "CC0."
)
TISSUE = "`skimage.data.immunohistochemistry`, no known copyright restrictions."
CAT = "`skimage.data.chelsea` (Stefan van der Walt), CC0."

SHOWN_NUCLEI = "0ea221716cf13710"  # not trained on
TRAINED_NUCLEI = 40
NUCLEI_NOISE = {"photons": 100, "read_noise": 0.01}
PHOTO_NOISE = {"read_noise": 0.04}  # 10 of 255 grey levels


@dataclass(frozen=True)
class Figure:
    """A figure of the gallery: how it is made, and its text."""

    name: str
    title: str
    text: str
    arguments: str  # of `napari-cfsr visualize`
    source: str
    before: str = ""  # commands to run first

    @property
    def file(self) -> Path:
        return IMAGES / f"{self.name}.png"


FIGURES = (
    Figure(
        "photo-x4",
        "A photo, x4",
        "The bundled refiner for clean images changes less than half a grey level here; PSNR and "
        "SSIM show what that is worth. Its checkpoint was selected on this data set, so even these "
        "scores are no evidence of a gain: see [measurements](measurements.md).",
        "{data}/validation/Kodak24/kodim19.png --hr --scale 4 --crop 432,8,96",
        KODAK,
    ),
    Figure(
        "crops-x4",
        "Several crops",
        "Each crop has its own colour; PSNR and SSIM are those of the whole image.",
        "{data}/validation/Kodak24/kodim05.png --hr --scale 4 --panels LR,bicubic,baseline,HR "
        "--crop 88,392,72 --crop 330,176,96",
        KODAK,
    ),
    Figure(
        "noisy-nuclei-x2",
        "Noisy nuclei, x2, with your own refiner",
        "Simulated: 100 photons in a white pixel and read noise of 1 %, 12 bits in 16. The "
        "frozen network takes noise for detail; a refiner trained on other "
        "images of this collection does not.",
        "{work}/noisy.tif --reference {work}/nuclei.tif --scale 2 "
        "--refiner {work}/nuclei.safetensors --crop 180,300,96",
        NUCLEI,
        "napari-cfsr train --data {work}/nuclei --scale 2 --photons 100 --read-noise 0.01 --seed 1 "
        "--output {work}/nuclei.safetensors",
    ),
    Figure(
        "noisy-photo-x4",
        "A noisy photo, x4, with your own refiner",
        "Simulated: Gaussian noise of 10 grey levels on the LR image. The refiner was trained on "
        "25 other photos.",
        "{work}/noisy.png --reference {data}/validation/Kodak24/kodim23.png --scale 4 "
        "--refiner {work}/photos.safetensors --crop 200,160,72",
        KODAK + " The refiner was trained on `gianni-rosato/gb82-image-set`, CC0.",
        "napari-cfsr train --data {work}/photos --scale 4 --read-noise 0.04 --seed 1 "
        "--output {work}/photos.safetensors",
    ),
    Figure(
        "tissue-x2",
        "Stained tissue, x2",
        "No refiner for clean images ships for the official x2 weights, so there is no delta and "
        "no difference.",
        "{work}/tissue.png --hr --scale 2 --crop 200,240,96",
        TISSUE,
    ),
    Figure(
        "no-reference-x4",
        "An image without a reference, x4",
        "Without a reference there is nothing to measure.",
        "{work}/nuclei.tif --scale 4 --refiner none --crop 730,1250,148 --pixel-size 0.65",
        NUCLEI + " The pixel size is an example.",
    ),
    Figure(
        "columns-x4",
        "Whole images above the crops",
        "`--arrangement columns`: the difference map of the whole image above that of the crop.",
        "{work}/cat.png --hr --scale 4 --crop 84,132,84 --arrangement columns",
        CAT,
    ),
)


def prepare(data: Path, work: Path) -> None:
    """Make the images that are not files yet, and the folders to train on."""
    from skimage import data as samples

    from napari_cfsr import degrade, read_image

    Image.fromarray(samples.immunohistochemistry()).save(work / "tissue.png")
    Image.fromarray(samples.chelsea()).save(work / "cat.png")
    folder = data / "microscopy" / "nuclei_dsb2018"
    hr = read_image(folder / f"{SHOWN_NUCLEI}.png").pixels[..., 0] / np.float32(255)
    lr = degrade(hr, 2, **NUCLEI_NOISE, seed=7)
    for name, image in (("nuclei", hr), ("noisy", lr)):
        tifffile.imwrite(work / f"{name}.tif", np.rint(image * 4095).astype(np.uint16))
    photo = read_image(data / "validation" / "Kodak24" / "kodim23.png").pixels
    lr = degrade(photo, 4, **PHOTO_NOISE, seed=7)
    Image.fromarray(np.rint(lr * 255).astype(np.uint8)).save(work / "noisy.png")
    link(fluorescence(folder), work / "nuclei")
    link(sorted((data / "train" / "photos").glob("gb82_*.jpg")), work / "photos")


def fluorescence(folder: Path) -> list[Path]:
    """Gray images without the one that is shown."""
    from napari_cfsr import read_image

    found: list[Path] = []
    for path in sorted(folder.glob("*.png")):
        pixels = read_image(path).pixels
        gray = (pixels[..., :1] == pixels[..., :3]).all() and pixels[..., 0].mean() < 100
        if gray and path.stem != SHOWN_NUCLEI:
            found.append(path)
    return found[:TRAINED_NUCLEI]


def link(files: list[Path], folder: Path) -> None:
    folder.mkdir()
    for path in files:
        (folder / path.name).symlink_to(path.resolve())


def run(line: str) -> str:
    """Run a command of the program; return what it printed."""
    from napari_cfsr.cli import main

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = main(shlex.split(line)[1:])
    if status:
        raise SystemExit(f"failed: {line}")
    return out.getvalue()


def make(figure: Figure, data: Path, work: Path, trained: dict[str, str]) -> dict:
    """Train if needed and draw the figure; return its record."""
    places = {"data": data, "work": work}
    if figure.before and figure.before not in trained:
        record = json.loads(run(figure.before.format(**places) + " --json"))
        trained[figure.before] = f"after {record['seconds']:.0f} s: {record['verdict']}"
        print(trained[figure.before])
    line = f"napari-cfsr visualize {figure.arguments.format(**places)} {SIZE} --overwrite"
    record = json.loads(run(f"{line} --json --output {figure.file}"))
    print(f"{figure.file.name}: {figure.file.stat().st_size} bytes", record["scores"])
    return record


def section(figure: Figure, record: dict, training: str) -> str:
    """The section of a figure on the page."""
    places = {"data": "DATA", "work": "."}
    commands = [figure.before.format(**places)] if figure.before else []
    commands.append(f"napari-cfsr visualize {figure.arguments.format(**places)}")
    parts = [f"## {figure.title}", f"![{figure.title}](images/gallery/{figure.file.name})"]
    parts.append(wrapped(figure.text))
    if record["scores"]:
        parts.append(table(record["scores"]))
    if training:
        parts.append(wrapped(f"What the training reported {training}"))
    parts.append("```sh\n" + "\n".join(commands) + "\n```")
    parts.append(wrapped(f"Image: {figure.source}"))
    return "\n\n".join(parts)


def wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def table(scores: dict) -> str:
    """PSNR and SSIM to four decimals."""
    rows = ["| | PSNR (dB) | SSIM |", "|---|---|---|"]
    rows += [f"| {name} | {s['psnr']:.4f} | {s['ssim']:.4f} |" for name, s in scores.items()]
    return "\n".join(rows)


HEAD = f"""\
# Gallery

Figures made by `napari-cfsr visualize` ([how](visualize.md)) with the official weights on two CPU
cores, by `python docs/make_gallery.py DATA`, which also writes this page. LR is the bicubic
reduction of HR unless stated otherwise. These PNG files were made with `{SIZE}` for
the screen; for print, take the defaults, or PDF. `prepare` in that script makes the files that are
not in DATA: noisy images by `napari_cfsr.degrade`, and folders of images to train on.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    data, names = arguments.data.resolve(), arguments.names
    IMAGES.mkdir(parents=True, exist_ok=True)
    trained: dict[str, str] = {}
    sections = []
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as work:
        os.environ["NAPARI_CFSR_HOME"] = home
        prepare(data, Path(work))
        for figure in FIGURES:
            if not names or figure.name in names:
                record = make(figure, data, Path(work), trained)
                sections.append(section(figure, record, trained.get(figure.before, "")))
    if names:
        return
    (DOCS / "gallery.md").write_text("\n\n".join([HEAD.rstrip(), *sections]) + "\n", "utf-8")
    size = sum(figure.file.stat().st_size for figure in FIGURES)
    print(f"{size} bytes in all")
    if size > MOST:
        raise SystemExit(f"expected at most {MOST} bytes of figures, got {size}")


if __name__ == "__main__":
    main()
