"""Running a batch: finished files are skipped, and a fault in one does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from napari_cfsr.core.batch.ledger import Ledger, file_stamp, input_identity
from napari_cfsr.core.batch.plan import BatchPlan
from napari_cfsr.core.batch.targets import STORE, Targets, check_targets
from napari_cfsr.core.batch.upscale_file import BlockRun, FileRecord, iter_upscale_file
from napari_cfsr.core.engine import Check, Model
from napari_cfsr.core.io import store_status
from napari_cfsr.core.store import StoreProgress
from napari_cfsr.core.upscale import UpscaleProgress, WithResult
from napari_cfsr.errors import CancelledError, CFSRError, OptionError

State = Literal["waiting", "running", "done", "skipped", "failed"]

ALREADY_THERE = "already there"
NOT_FINISHED = "not finished"


@dataclass(frozen=True, eq=False)
class BatchRecord:
    """The outcome of an input."""

    path: Path
    # `waiting` if it was not begun or not finished when the batch was cancelled
    state: State = "waiting"
    # the files that exist now, by the name of the output
    outputs: dict[str, Path] = field(default_factory=dict)
    seconds: float = 0.0  # reading and writing included
    message: str = ""  # what ran, or what is wrong
    provenance: dict[str, Any] | None = None  # if it was upscaled in this batch


@dataclass(frozen=True, eq=False)
class BatchStep:
    """How far a batch is."""

    index: int  # of the item in the plan
    path: Path  # its input
    state: State
    fraction: float = 0.0  # of this file
    # of the whole batch, estimated from the sizes of the files; None before there is an estimate
    seconds_left: float | None = None
    text: str = ""  # for the user: a note while it runs, a summary in one line at its end
    progress: UpscaleProgress | None = None  # of this file, while it runs
    record: BatchRecord | None = None  # at its end


def iter_batch(
    plan: BatchPlan,
    load: Callable[[], Model],
    check: Check = lambda: None,
    blocks: BlockRun | None = None,
) -> Generator[BatchStep, None, list[BatchRecord]]:
    """Run a batch step by step. A fault in one file does not stop the others.

    Files with a known fault and files that are finished already are reported before `load` is
    called; if nothing else is left, it is not called at all.

    Parameters
    ----------
    plan : BatchPlan
        From `plan_batch`.
    load : callable
        Gives the model that the plan was made for.
    check : callable
        Called several times a second. After a `CancelledError` from it the batch ends, and the
        records are returned all the same; finished results stay. Other errors are passed on.
    blocks : callable, optional
        As for `iter_upscale_file`.

    Returns
    -------
    list of BatchRecord
        One for each item of the plan.

    Raises
    ------
    CFSRError
        The model can't be loaded, or is not the one that the batch was planned for.
    """
    run = _Run(plan, check, blocks)
    with suppress(CancelledError):
        yield from run.steps(load)
    return run.records


class BatchClock:
    """Time left, from the sizes of the files and how long those before them took."""

    def __init__(self) -> None:
        self.seconds = 0.0  # that the last file took
        self._waiting: dict[int, int] = {}
        self._running = 0  # bytes
        self._worked = (0.0, 0.0)  # seconds, bytes

    def expect(self, sizes: Mapping[int, int]) -> None:
        """Take the bytes of each file to upscale, by its index."""
        self._waiting = {i: max(size, 1) for i, size in sizes.items()}

    def begin(self, index: int) -> None:
        """Start the clock of a file."""
        self._running = self._waiting.pop(index)
        self._began = time.perf_counter()

    def end(self, worked: bool = True) -> None:
        """Stop it; a file that failed says nothing about the others."""
        self.seconds = time.perf_counter() - self._began
        if worked:
            seconds, size = self._worked
            self._worked = (seconds + self.seconds, size + self._running)
        self._running = 0

    def seconds_left(self, step: UpscaleProgress | None = None) -> float | None:
        """Of the whole batch, at a step of the current file; None before there is an estimate."""
        seconds, size = self._worked
        waiting = float(sum(self._waiting.values()))
        now = step.seconds_left if step is not None else None
        if step is None or now is None:
            now, waiting = 0.0, waiting + self._running
        else:  # blocks that an earlier run wrote take no time now
            earlier = step.earlier if isinstance(step, StoreProgress) else 0
            seconds += step.seconds + now
            size += self._running * (1 - earlier / max(step.total, 1))
        if not waiting:
            return now
        return now + seconds / size * waiting if size else None


class _Run:
    """State of one run of a batch."""

    def __init__(self, plan: BatchPlan, check: Check, blocks: BlockRun | None) -> None:
        self.plan, self.check, self.blocks = plan, check, blocks
        self.records = [BatchRecord(item.path) for item in plan.items]
        self.todo: dict[int, bool] = {}  # by index: whether results may be replaced
        self.ledgers: dict[Path, Ledger] = {}
        self.clock = BatchClock()
        self.reported: set[str] = set()

    def steps(self, load: Callable[[], Model]) -> Generator[BatchStep, None, None]:
        items = self.plan.items
        for i, item in enumerate(items):
            if item.targets is None or item.fault:
                yield self._end(i, BatchRecord(item.path, "failed", message=item.fault))
        for i, item in enumerate(items):
            if not item.fault and item.targets is not None:
                yield from self._compare(i, item.path, item.targets)
        if not self.todo:
            return
        model = load()
        self._check_model(model)
        self.clock.expect({i: (file_stamp(items[i].path) or {}).get("size", 0) for i in self.todo})
        for i in self.todo:
            targets = items[i].targets
            assert targets is not None  # or it would have failed above
            yield from self._run(i, items[i].path, targets, model)

    def _check_model(self, model: Model) -> None:
        info, asked = model.info, self.plan.request
        got = (info.scale, info.backbone_sha256, info.refiner_sha256)
        if got != (asked["scale"], asked["backbone"], asked["refiner"]):
            raise OptionError(
                f"expected the weights that the batch was planned for, got x{info.scale} with "
                f"{info.backbone}, refiner {info.refiner}: plan it again"
            )

    def _ledger(self, targets: Targets) -> Ledger:
        folder = targets.paths[0].parent.resolve()
        if folder not in self.ledgers:
            self.ledgers[folder] = Ledger(folder)
        return self.ledgers[folder]

    def _compare(self, i: int, path: Path, targets: Targets) -> Generator[BatchStep, None, None]:
        """Find out whether the results of an item exist, and whether they may be replaced."""
        self.check()
        overwrite, made = self.plan.overwrite, set[Path]()
        if not self.plan.single:
            known = len(self.ledgers)
            ledger = self._ledger(targets)
            text = ledger.fault if len(self.ledgers) > known else ""
            yield BatchStep(i, path, "waiting", text=text)
            if not overwrite:
                made = ledger.made(path, targets.paths, self.plan.request, self.check)
        if made == set(targets.paths):
            outputs = _outputs(targets, self.plan.options.outputs)
            yield self._end(i, BatchRecord(path, "skipped", outputs, message=ALREADY_THERE))
            return
        try:
            _check_existing([t for t in targets.paths if t not in made], overwrite)
        except CFSRError as error:
            yield self._end(i, BatchRecord(path, "failed", message=named(path, str(error))))
        else:
            self.todo[i] = overwrite or bool(made)

    def _run(
        self, i: int, path: Path, targets: Targets, model: Model
    ) -> Generator[BatchStep, None, None]:
        """Upscale one file."""
        self.clock.begin(i)
        try:
            yield BatchStep(i, path, "running", 0.0, self.clock.seconds_left())
            done = yield from self._file(i, path, targets, model)
        except CancelledError:
            self.records[i] = BatchRecord(path, message=NOT_FINISHED)
            raise
        except CFSRError as error:
            self.clock.end(worked=False)
            text, seconds = named(path, str(error)), self.clock.seconds
            yield self._end(i, BatchRecord(path, "failed", seconds=seconds, message=text))
        else:
            self.clock.end()
            outputs, notes = dict(done.outputs), "; ".join(done.notes)
            record = BatchRecord(
                path, "done", outputs, self.clock.seconds, notes, dict(done.provenance)
            )
            yield self._end(i, record, done.summary)

    def _file(
        self, i: int, path: Path, targets: Targets, model: Model
    ) -> Generator[BatchStep, None, FileRecord]:
        ledger = None if self.plan.single else self._ledger(targets)
        identity = input_identity(path, self.check) if ledger is not None else None
        options, overwrite = self.plan.options, self.todo[i]
        run = iter_upscale_file(path, targets, model, options, overwrite, self.check, self.blocks)
        steps, begun = WithResult(run), False
        with closing(run):
            for step in steps:
                if not begun and ledger is not None and identity is not None:
                    begun = True
                    enter = partial(ledger.begin, identity, targets.paths, self.plan.request)
                    yield from self._enter(i, path, enter)
                left = self.clock.seconds_left(step)
                yield BatchStep(i, path, "running", step.fraction, left, step.note, step)
        if begun and ledger is not None:
            yield from self._enter(i, path, partial(ledger.finish, path, targets.paths))
        return steps.result

    def _enter(
        self, i: int, path: Path, enter: Callable[[], None]
    ) -> Generator[BatchStep, None, None]:
        """Write to a ledger; a failure is reported once and does not stop the file."""
        try:
            enter()
        except CFSRError as error:
            if str(error) not in self.reported:
                self.reported.add(str(error))
                yield BatchStep(i, path, "running", text=str(error))

    def _end(self, i: int, record: BatchRecord, text: str = "") -> BatchStep:
        self.records[i] = record
        fraction, left = float(record.state != "failed"), self.clock.seconds_left()
        text = text or record.message
        return BatchStep(i, record.path, record.state, fraction, left, text, record=record)


def named(path: Path, text: str) -> str:
    """A fault with the name of its input."""
    return text if str(path) in text else f"{path}: {text}"


def _check_existing(targets: Sequence[Path], overwrite: bool) -> None:
    """Raise an error for results that must not be replaced; unfinished stores are resumed."""
    unfinished = {t for t in targets if t.suffix.lower() == STORE and store_status(t) == "partial"}
    check_targets([target for target in targets if target not in unfinished], {}, overwrite)


def _outputs(targets: Targets, names: tuple[str, ...] | None) -> dict[str, Path]:
    """Existing results, by the name of the output: several in a store are groups of it."""
    if targets.store is None or len(names or ()) < 2:
        return dict(targets.files)
    return {name: targets.store / name for name in names or ()}
