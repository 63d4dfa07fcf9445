"""Training a backbone from scratch, or from the body of another one.

The network is trained in training form and merged when it is validated or written. Patches are
chosen by a generator seeded with the number of the step, so a resumed training sees the patches it
would have seen without the interruption.
"""

from __future__ import annotations

import hashlib
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from napari_cfsr.core.backbone.config import BackboneConfig
from napari_cfsr.core.backbone.data import Pair, UInt8
from napari_cfsr.core.backbone.files import TrainingState, save_backbone
from napari_cfsr.core.backbone.initial_weights import fresh, started_from
from napari_cfsr.core.backbone.patches import PatchPool
from napari_cfsr.core.engine import choose_device, domain_errors
from napari_cfsr.core.metrics import psnr
from napari_cfsr.core.network import CFSR, CFSRConfig, Gradients
from napari_cfsr.errors import DivergedError, OptionError

Named = tuple[str, Pair]

Tensors = tuple[Tensor, ...] | list[Tensor]

BETAS = (0.9, 0.99)
MOST_SKIPPED = 10  # steps in a row whose gradients may be not finite
SAVE_SECONDS = 60.0  # between two states on disk: the most that a crash can lose


@dataclass(frozen=True)
class BackboneProgress:
    """Progress of a training."""

    step: int
    loss: float  # mean since the last report
    rate: float  # learning rate
    images_per_second: float  # patches, mean over this run
    fraction: float  # share of the training that is done
    seconds_left: float | None
    psnr: float | None  # mean Y PSNR of the validation images, dB; None between validations
    best: float | None  # the best PSNR so far


@dataclass(frozen=True, eq=False)
class BackboneRequest:
    """What to train."""

    train: Sequence[Pair]  # uint8, [h,w,3] and [h*scale,w*scale,3]
    validation: Sequence[Named]  # images that decide which weights are the best
    config: BackboneConfig
    output: Path  # file of the best backbone, rewritten whenever there is a better one
    device: str = "auto"
    init: CFSR | None = None  # a network in merged form, of any scale, to start from
    state: TrainingState | None = None  # to resume from
    card: dict[str, Any] = field(default_factory=dict)  # plain values for the card of the backbone
    # plain values for the state, to be used when it is resumed
    remembered: dict[str, Any] = field(default_factory=dict)
    half: bool = False  # write float16: half the size

    @property
    def state_path(self) -> Path:
        """File of the state to resume from."""
        return state_path(self.output)


def state_path(output: Path) -> Path:
    """File of the training state that belongs to a backbone's file."""
    return output.with_name(f"{output.stem}.state.safetensors")


def iter_train_backbone(
    request: BackboneRequest, stop: Callable[[], bool] = lambda: False
) -> Iterator[BackboneProgress]:
    """Train step by step; yields from time to time.

    The best backbone is on disk from the first validation on; the state is written at every
    validation, every minute, and at the end.

    Once `stop` returns true, the state is written and the iterator ends.

    Raises
    ------
    ImageError
        No image is large enough for a patch.
    WeightsError
        A file can't be written.
    OptionError
        The state was validated with other images.
    DivergedError
        The gradients are no longer finite; the state on disk is an earlier one.
    OutOfMemoryError, DeviceError
    """
    device = choose_device(request.device)
    with domain_errors(device):
        training = _BackboneTraining(request, device)
        with closing(training.gradients):
            yield from training.run(stop)


def evaluate_backbone(network: CFSR, images: Sequence[Named]) -> dict[str, float]:
    """PSNR of each image, dB, on Y, `scale` pixels of the border left out, not rounded.

    The network is in evaluation mode.
    """
    found = {}
    scale = network.config.scale
    for name, (lr, hr) in images:
        with torch.inference_mode():
            sr = network(_unit(lr, network.mean.device))[0].clamp(0, 1)
        image = sr.permute(1, 2, 0).cpu().numpy()
        found[name] = psnr(image, hr.astype(np.float32) / 255, shave=scale, channel="Y")
    return found


class _BackboneTraining:
    def __init__(self, request: BackboneRequest, device: str) -> None:
        self.request, self.device = request, device
        self.config = request.config.on(device)
        torch.manual_seed(self.config.seed)
        shape = CFSRConfig(scale=self.config.scale, merged=False)
        network = fresh(shape) if request.init is None else started_from(request.init, shape)
        network = network.to(device)
        self.network: CFSR = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(self.network, multi_avg_fn=self._average)
        self.optimiser = torch.optim.Adam(self.network.parameters(), betas=BETAS, fused=True)
        assert self.config.patch is not None
        self.pool = PatchPool(request.train, self.config.scale, self.config.patch, device)
        self.step, self.seconds = 0, 0.0
        self.skipped = 0  # steps in a row whose gradients were not finite
        self.best: dict[str, Tensor] = {}
        self.best_card: dict[str, Any] = {}
        self.best_psnr: float | None = None
        self.history: list[dict[str, float]] = []
        if request.state is not None:
            self._resume(request.state)
        self.gradients = Gradients(self.network, device)  # last: the caller closes it

    # the loop

    def run(self, stop: Callable[[], bool]) -> Iterator[BackboneProgress]:
        if self.best and not self.request.output.exists():
            save_backbone(self.request.output, self.best, self.best_card, self.request.half)
        saved = began = time.perf_counter()
        first, losses = self.step, list[Tensor]()
        batch = self.config.batch or 1
        report_every = 10 if self.device == "cpu" else 50  # a report fetches the loss from it
        self.fraction = self.config.done(self.step, self.seconds)
        while self.fraction < 1 and not stop():
            started = time.perf_counter()
            losses.append(self._step())
            self.step += 1
            done = self.config.done(self.step, self.seconds + time.perf_counter() - started)
            validate = self._crosses(self.fraction, done)
            if not validate and len(losses) < report_every:
                self._tick(started)
                continue
            loss = float(torch.stack(losses).mean())
            found = self._validate(loss) if validate else None
            self._tick(started)
            now = time.perf_counter()
            if validate or now - saved > SAVE_SECONDS:
                self.state().save(self.request.state_path)
                saved = now
            speed = batch * (self.step - first) / (now - began)
            yield self._progress(loss, speed, found)
            losses = []
        self.state().save(self.request.state_path)

    def _tick(self, started: float) -> None:
        """Add the time since `started`, and update the share that is done."""
        self.seconds += time.perf_counter() - started
        self.fraction = self.config.done(self.step, self.seconds)

    def _crosses(self, before: float, after: float) -> bool:
        """Whether a validation is due between two shares of the training; the last one is at 1."""
        count = self.config.validations
        return math.floor(after * count) > math.floor(before * count)

    def _step(self) -> Tensor:
        config = self.config
        rng = np.random.default_rng([config.seed, self.step])
        lr, hr = self.pool.batch(rng, config.batch or 1)
        for group in self.optimiser.param_groups:
            group["lr"] = config.rate_at(self.step, self.fraction)
        is_last_part = self.fraction >= 1 - config.mse_share
        criterion = F.mse_loss if is_last_part else F.l1_loss

        def loss_of(lr: Tensor, hr: Tensor) -> Tensor:
            with self._autocast():
                sr = self.network(lr)
            return criterion(sr.float(), hr)

        loss = self.gradients.compute(loss_of, lr, hr)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        if not torch.isfinite(norm):  # the step would turn all weights into NaN
            self._skip(float(loss))
            return loss
        self.skipped = 0
        self.optimiser.step()
        self.average.update_parameters(self.network)
        return loss

    def _skip(self, loss: float) -> None:
        """Count a skipped step; too many in a row end the training."""
        self.skipped += 1
        if self.skipped > MOST_SKIPPED:
            raise DivergedError(
                f"the training diverged at step {self.step} (loss {loss:g}, gradients not finite): "
                f"resume from {self.request.state_path} with a smaller rate"
            )

    def _average(self, averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        """Exponential moving average, with a smaller decay during the first steps."""
        decay = min(self.config.average, (1 + int(count)) / (10 + int(count)))
        with torch.no_grad():
            torch._foreach_lerp_(averaged, current, 1 - decay)

    def _autocast(self) -> Any:
        low = self.config.precision == "bfloat16"
        return torch.autocast(self.device.split(":")[0], dtype=torch.bfloat16, enabled=low)

    # results

    def _validate(self, loss: float) -> float:
        network: CFSR = cast("CFSR", self.average.module).merge()
        if self.request.half:
            network = network.half().float()  # as it will be after loading
        found = float(np.mean(list(evaluate_backbone(network, self.request.validation).values())))
        about = {"step": self.step, "seconds": round(self.seconds, 1)}
        self.history.append({**about, "loss": round(loss, 8), "psnr": round(found, 5)})
        if math.isfinite(found) and (self.best_psnr is None or found > self.best_psnr):
            self.best_psnr = found
            self.best = {k: v.cpu().clone() for k, v in network.state_dict().items()}
            self.best_card = self._card()
            save_backbone(self.request.output, self.best, self.best_card, self.request.half)
        return found

    def _card(self) -> dict[str, Any]:
        from napari_cfsr._version import __version__

        return {
            **self.request.card,
            "scale": self.config.scale,
            "config": self.config.to_dict(),
            "step": self.step,
            "hours": round(self.seconds / 3600, 3),
            "images": self.pool.count,
            "validation": [name for name, _ in self.request.validation],
            "psnr": round(self.best_psnr or 0.0, 4),
            "hardware": _hardware(self.device),
            "version": __version__,
        }

    def _progress(self, loss: float, speed: float, found: float | None) -> BackboneProgress:
        done = self.fraction
        left = self.seconds / done * (1 - done) if done else None
        rate = self.optimiser.param_groups[0]["lr"]
        return BackboneProgress(self.step, loss, rate, speed, done, left, found, self.best_psnr)

    # interruptions

    def state(self) -> TrainingState:
        """The current state."""
        moments = {
            f"{number}/{key}": value
            for number, named in self.optimiser.state_dict()["state"].items()
            for key, value in named.items()
        }
        return TrainingState(
            {
                "network": dict(self.network.state_dict()),
                "average": dict(self.average.module.state_dict()),
                "best": self.best,
                "adam": moments,
            },
            {
                "step": self.step,
                "seconds": self.seconds,
                "best_psnr": self.best_psnr,
                "history": self.history,
                "config": self.config.to_dict(),
                "best_card": self.best_card,
                "validation": _fingerprint(self.request.validation),
                "remembered": self.request.remembered,
            },
        )

    def _resume(self, state: TrainingState) -> None:
        about = state.about
        if about["validation"] != _fingerprint(self.request.validation):
            raise OptionError(
                "expected the validation images of the resumed training, got others, whose PSNR "
                "can't be compared with the best so far: choose the same images, or start a new "
                "training from the backbone"
            )
        self.step, self.seconds = about["step"], about["seconds"]
        self.best_psnr, self.history = about["best_psnr"], about["history"]
        self.best, self.best_card = state.tensors.get("best", {}), about["best_card"]
        self.network.load_state_dict(state.tensors["network"])
        self.average.module.load_state_dict(state.tensors["average"])
        self.average.n_averaged.fill_(self.step)
        moments: dict[int, dict[str, Tensor]] = {}
        parameters = list(self.network.parameters())
        for name, value in state.tensors.get("adam", {}).items():
            number, key = name.split("/")
            if key != "step":  # fused Adam needs the same memory layout
                value = torch.empty_like(parameters[int(number)]).copy_(value)
            moments.setdefault(int(number), {})[key] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})


def _fingerprint(images: Sequence[Named]) -> str:
    """Hash of names and pixels."""
    digest = hashlib.sha256()
    for name, (lr, hr) in images:
        digest.update(f"{name} {hr.shape} {lr.shape}".encode())
        digest.update(hr.tobytes())
    return digest.hexdigest()


def _unit(image: UInt8, device: torch.device) -> Tensor:
    """[h,w,3] of uint8 to [1,3,h,w] in [0,1], channels last."""
    x = torch.from_numpy(np.ascontiguousarray(image)).to(device)
    return x.permute(2, 0, 1)[None].float() / 255


def _hardware(device: str) -> str:
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"{device}, {torch.get_num_threads()} threads, {platform.machine()}"
