"""`napari-cfsr train`: images in, a refiner out."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cfsr.cli.common import download_bar, say
from napari_cfsr.cli.train_display import STOPPING, Interrupts, training_display
from napari_cfsr.cli.train_options import add_train_options, config_of, data_of
from napari_cfsr.core.weights import weight_files
from napari_cfsr.errors import CancelledError, CFSRError, NoGainError, OptionError

if TYPE_CHECKING:
    from napari_cfsr.core.training import TrainedRefiner, TrainingLog, TrainRequest


def add_train(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_train)
    add_train_options(command)


def run_train(options: argparse.Namespace) -> int:
    """Train, measure and save; all options are checked before."""
    from napari_cfsr.core.training import TrainRequest

    config = config_of(options)
    target = _target(options)
    data = data_of(options, config)
    for note in data.notes:
        say(note)
    request = TrainRequest(data, _load_arguments(options), config)
    with _log(options.tensorboard) as log:
        trained = _train(request, log)
    if options.description:
        trained = replace(trained, card=replace(trained.card, description=options.description))
    new = tuple(note for note in trained.notes if note not in data.notes)
    trained = trained if options.json else replace(trained, notes=new)
    return _finish(trained, target, options)


def _target(options: argparse.Namespace) -> Path:
    """The file of the refiner; raises an error if it can't be written."""
    from napari_cfsr.core.weights import check_target, check_writable, export_path

    if options.name is not None:
        target = check_target(options.name, options.overwrite)
    else:
        target = export_path(options.output, "refiner")
        check_writable(target)
        if target.exists() and not options.overwrite:
            raise OptionError(f"{target} exists: pass --overwrite to replace it")
    check_writable(target)
    return target


def _load_arguments(options: argparse.Namespace) -> dict[str, object]:
    """Arguments of `load_model`; downloads the weights if necessary."""
    with download_bar() as progress:
        _, notes = weight_files.find_backbone(options.scale, options.backbone, progress=progress)
    for note in notes:
        say(note)
    return {
        "scale": options.scale,
        "backbone": options.backbone,
        "device": options.device,
        "download": False,
    }


@contextlib.contextmanager
def _log(folder: Path | None) -> Iterator[TrainingLog | None]:
    """A TensorBoard log, if requested."""
    if folder is None:
        yield None
        return
    from napari_cfsr.core.training import TrainingLog

    log = TrainingLog(folder)
    try:
        yield log
    finally:
        log.close()
        if log.fault:
            say(log.fault)


def _train(request: TrainRequest, log: TrainingLog | None) -> TrainedRefiner:
    """Train in this process, with progress on standard error."""
    from napari_cfsr.core.engine import keep_freed_memory
    from napari_cfsr.core.training import iter_train
    from napari_cfsr.core.upscale import WithResult

    keep_freed_memory()
    interrupts = Interrupts()
    run = iter_train(request, stop=interrupts.stop)
    steps = WithResult(run)
    try:
        with interrupts.listening(), training_display() as display:
            for progress in steps:
                if interrupts.update(progress):
                    display.say(STOPPING)
                display.show(progress)
                if log is not None:
                    log.add(progress)
    except KeyboardInterrupt as error:
        raise CancelledError("interrupted; nothing was saved") from error
    finally:
        run.close()
    if log is not None:
        log.finish(steps.result)
    return steps.result


def _finish(trained: TrainedRefiner, target: Path, options: argparse.Namespace) -> int:
    """Save the refiner, print the result, and return the exit status."""
    from napari_cfsr.core.weights import SavedElsewhereError, save_or_elsewhere

    path: Path | None = None
    fault: CFSRError | None = None
    try:
        path = save_or_elsewhere(trained, target, options.overwrite)
    except SavedElsewhereError as error:
        path, fault = error.path, error
    except CFSRError as error:
        fault = error
    if options.json:
        print(json.dumps({**json.loads(trained.to_json()), "path": path and str(path)}))
    else:
        _print_report(trained, path, said=isinstance(fault, NoGainError))
    if fault is not None:
        say(str(fault))
    return 0 if fault is None else 2


def _print_report(trained: TrainedRefiner, path: Path | None, said: bool) -> None:
    report = trained.report
    print(report.table())
    images = f"{len(report.images)} held-out image{'' if len(report.images) == 1 else 's'}"
    print(f"mean of {images} ({report.channel}, shave {report.shave}): {', '.join(report.images)}")
    for note in trained.notes:
        print(note)
    if not said:
        print(trained.verdict)
    if path is not None:
        print(f"saved as {path} ({trained.gain:+.2f} dB, {trained.seconds:.0f} s)")
