"""The command line: `napari-cfsr` and its commands.

Exit status 0, or 2 with one line per error on standard error.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from napari_cfsr.cli.common import PROGRAM, say
from napari_cfsr.cli.demo import add_demo
from napari_cfsr.cli.evaluate import add_evaluate
from napari_cfsr.cli.models import add_models
from napari_cfsr.cli.train import add_train
from napari_cfsr.cli.train_backbone import add_train_backbone
from napari_cfsr.cli.upscale import add_upscale
from napari_cfsr.cli.visualize import add_visualize
from napari_cfsr.errors import CFSRError


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line."""

    def error(self, message: str) -> NoReturn:
        say(f"{message} (see '{self.prog} --help')")
        raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0 on success, 2 on any failure."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see docs/decisions/0002
    # logs of libraries are for developers; users get errors and notes
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names may be in any script
        sys.stdout.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except CFSRError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("interrupted; files that were finished are complete")
        return 2
    except BrokenPipeError:  # the reader of the output has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    return status


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = _Parser(prog=PROGRAM, description="Super-resolution of images with CFSR.")
    top.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = top.add_subparsers(required=True, metavar="COMMAND", title="commands")
    add_demo(commands.add_parser("demo", help="upscale a sample image of scikit-image"))
    add_upscale(commands.add_parser("upscale", help="upscale image files"))
    add_evaluate(commands.add_parser("evaluate", help="measure PSNR and SSIM on data sets"))
    add_visualize(commands.add_parser("visualize", help="draw figures that compare results"))
    add_train(commands.add_parser("train", help="train a refiner on your own images"))
    add_train_backbone(
        commands.add_parser("train-backbone", help="train a backbone on a folder of images")
    )
    add_models(commands.add_parser("models", help="list, fetch, import and manage weights"))
    return top


class _Version(argparse.Action):
    def __call__(self, *_: object) -> None:
        from napari_cfsr import __version__

        print(f"{PROGRAM} {__version__}")
        raise SystemExit(0)
