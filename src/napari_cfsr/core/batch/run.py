"""Running a batch: what is there already is left out, and a fault in one file stops no other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from napari_cfsr.core.batch.clock import BatchClock
from napari_cfsr.core.batch.ledger import Ledger, file_stamp, input_identity
from napari_cfsr.core.batch.plan import BatchPlan
from napari_cfsr.core.batch.targets import STORE, Targets, check_targets
from napari_cfsr.core.batch.upscale_file import BlockRun, FileRecord, iter_upscale_file
from napari_cfsr.core.engine import Check, Model
from napari_cfsr.core.io import store_status
from napari_cfsr.core.upscale import UpscaleProgress, WithResult
from napari_cfsr.errors import CancelledError, CFSRError, OptionError

State = Literal["waiting", "running", "done", "skipped", "failed"]

THERE = "already there"
NOT_FINISHED = "not finished"


@dataclass(frozen=True, eq=False)
class BatchRecord:
    """What became of an input.

    Attributes
    ----------
    path : Path
    state : {"waiting", "running", "done", "skipped", "failed"}
        `waiting` of what was not begun or not finished when the batch was cancelled.
    outputs : dict of str to Path
        What is there now, by the name of the output.
    seconds : float
        That it took, reading and writing included.
    message : str
        What ran, or what is wrong.
    provenance : dict or None
        Of what was upscaled in this batch.
    """

    path: Path
    state: State = "waiting"
    outputs: dict[str, Path] = field(default_factory=dict)
    seconds: float = 0.0
    message: str = ""
    provenance: dict[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class BatchStep:
    """How far a batch is.

    Attributes
    ----------
    index : int
        Of the item in the plan.
    path : Path
        Its input.
    state : {"waiting", "running", "done", "skipped", "failed"}
    fraction : float
        Of this file.
    seconds_left : float or None
        Of the whole batch, an estimate from the sizes of the files; None before there is one.
    text : str
        What the user should know: while it runs, a note; at its end, all of it in one line.
    progress : UpscaleProgress or None
        Of this file, while it runs.
    record : BatchRecord or None
        At its end.
    """

    index: int
    path: Path
    state: State
    fraction: float = 0.0
    seconds_left: float | None = None
    text: str = ""
    progress: UpscaleProgress | None = None
    record: BatchRecord | None = None


def iter_batch(
    plan: BatchPlan,
    load: Callable[[], Model],
    check: Check = lambda: None,
    blocks: BlockRun | None = None,
) -> Generator[BatchStep, None, list[BatchRecord]]:
    """Run a batch step by step. A fault in one file does not stop the others.

    What is known to be at fault, or to be there already, is said before `load` is called; where
    nothing else is left, it is not called at all.

    Parameters
    ----------
    plan : BatchPlan
        From `plan_batch`.
    load : callable
        Gives the model that the plan was made for.
    check : callable
        Called several times a second. `CancelledError` from it ends the batch, and what became of
        it is returned all the same; finished results stay. Anything else it raises is passed on.
    blocks : callable, optional
        As for `iter_upscale_file`.

    Returns
    -------
    list of BatchRecord
        One for each item of the plan.

    Raises
    ------
    CFSRError
        The model can't be loaded, or is not the one that the plan was made for.
    """
    run = _Run(plan, check, blocks)
    with suppress(CancelledError):
        yield from run.steps(load)
    return run.records


class _Run:
    """State of one run of a batch."""

    def __init__(self, plan: BatchPlan, check: Check, blocks: BlockRun | None) -> None:
        self.plan, self.check, self.blocks = plan, check, blocks
        self.records = [BatchRecord(item.path) for item in plan.items]
        self.replace: dict[int, bool] = {}  # whether what is there may be replaced
        self.ledgers: dict[Path, Ledger] = {}
        self.clock = BatchClock()
        self.said: set[str] = set()

    def steps(self, load: Callable[[], Model]) -> Generator[BatchStep, None, None]:
        items = self.plan.items
        for i, item in enumerate(items):
            if item.targets is None or item.fault:
                yield self._end(i, "failed", item.fault)
        for i, item in enumerate(items):
            if not item.fault and item.targets is not None:
                yield from self._compare(i, item.path, item.targets)
        if not self.replace:
            return
        model = load()
        self._check_model(model)
        self.clock.expect(
            {i: (file_stamp(items[i].path) or {}).get("size", 0) for i in self.replace}
        )
        for i in self.replace:
            targets = items[i].targets
            assert targets is not None  # else it would not have come here
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
        """Find out whether an item is there already, or in the way."""
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
            yield self._end(i, "skipped", THERE, _outputs(targets, self.plan.options.outputs))
            return
        try:
            _check_there([t for t in targets.paths if t not in made], overwrite)
        except CFSRError as error:
            yield self._end(i, "failed", named(path, str(error)))
        else:
            self.replace[i] = overwrite or bool(made)

    def _run(
        self, i: int, path: Path, targets: Targets, model: Model
    ) -> Generator[BatchStep, None, None]:
        """Upscale one file."""
        self.clock.begin(i)
        try:
            yield BatchStep(i, path, "running", 0.0, self.clock.seconds_left())
            record = yield from self._file(i, path, targets, model)
        except CancelledError:
            self.records[i] = BatchRecord(path, message=NOT_FINISHED)
            raise
        except CFSRError as error:
            self.clock.end(worked=False)
            yield self._end(i, "failed", named(path, str(error)), seconds=self.clock.seconds)
        else:
            self.clock.end()
            yield self._done(i, record)

    def _file(
        self, i: int, path: Path, targets: Targets, model: Model
    ) -> Generator[BatchStep, None, FileRecord]:
        ledger = None if self.plan.single else self._ledger(targets)
        identity = input_identity(path, self.check) if ledger is not None else None
        options, overwrite = self.plan.options, self.replace[i]
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
        """Write to a ledger; where that can't be, it is said once, and the file goes on."""
        try:
            enter()
        except CFSRError as error:
            if str(error) not in self.said:
                self.said.add(str(error))
                yield BatchStep(i, path, "running", text=str(error))

    def _done(self, i: int, record: FileRecord) -> BatchStep:
        self.records[i] = BatchRecord(
            record.path,
            "done",
            dict(record.outputs),
            self.clock.seconds,
            "; ".join(record.notes),
            dict(record.provenance),
        )
        return BatchStep(i, record.path, "done", 1.0, self.clock.seconds_left(),
                         record.summary, record=self.records[i])  # fmt: skip

    def _end(
        self,
        i: int,
        state: State,
        text: str,
        outputs: dict[str, Path] | None = None,
        seconds: float = 0.0,
    ) -> BatchStep:
        path = self.plan.items[i].path
        self.records[i] = BatchRecord(path, state, outputs or {}, seconds, text)
        return BatchStep(i, path, state, float(state == "skipped"), self.clock.seconds_left(),
                         text, record=self.records[i])  # fmt: skip


def named(path: Path, text: str) -> str:
    """A fault with the input that it is of."""
    return text if str(path) in text else f"{path}: {text}"


def _check_there(targets: Sequence[Path], overwrite: bool) -> None:
    """Raise an error for what must not be replaced; stores that were begun are gone on with."""
    begun = [t for t in targets if t.suffix.lower() == STORE and store_status(t) == "partial"]
    check_targets([target for target in targets if target not in begun], {}, overwrite)


def _outputs(targets: Targets, names: tuple[str, ...] | None) -> dict[str, Path]:
    """What is there, by the name of the output: several in a store are groups of it."""
    if targets.store is None or len(names or ()) < 2:
        return dict(targets.files)
    return {name: targets.store / name for name in names or ()}
