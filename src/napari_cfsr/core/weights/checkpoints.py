"""Weights files, loaded safely: nothing in a file is executed, and each fault has its own error."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cfsr.core.image import NoiseModel
from napari_cfsr.core.io import atomic_write
from napari_cfsr.core.network import REFINER_FIELDS
from napari_cfsr.core.weights import engine_cache
from napari_cfsr.core.weights.engine_cache import Arrays
from napari_cfsr.core.weights.weight_files import WeightsFile, file_named
from napari_cfsr.errors import (
    ArchitectureError,
    NotTensorsError,
    RefinerMismatchError,
    ScaleError,
    TruncatedWeightsError,
    UnsafeWeightsError,
    WeightsError,
    WeightsNotFoundError,
)

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from napari_cfsr.core.network import CFSR, Placement, Refiner

REFINER_FORMAT = "napari-cfsr refiner 1"
LARGEST_PICKLE = 2**26  # bytes; names and shapes of tensors need far less
# operations of a pickle that name or call Python objects
CODE = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD"}


def load_state(path: Path) -> dict[str, Tensor]:
    """Named tensors from a .pth, .pt or .safetensors file.

    Raises
    ------
    WeightsNotFoundError
        There is no such file.
    TruncatedWeightsError
        The file is incomplete or not a weights file.
    UnsafeWeightsError
        It contains pickled code, which was not executed.
    NotTensorsError
        It contains something other than named tensors.
    """
    if file_named(path) is None:
        raise WeightsNotFoundError(f"expected a weights file, got {path}: there is no such file")
    loaded = _load_safetensors(path) if _is_safetensors(path) else _load_pth(path)
    for key in ("params_ema", "params", "state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    import torch

    if not isinstance(loaded, Mapping) or not loaded:
        raise NotTensorsError(f"expected tensors by name in {path}, got {_describe(loaded)}")
    wrong = [k for k, v in loaded.items() if not isinstance(k, str) or not _is_plain_tensor(v)]
    if wrong:
        raise NotTensorsError(
            f"expected tensors by name in {path}, got {_describe(loaded[wrong[0]])} as {wrong[0]!r}"
        )
    return {k: v.detach().to("cpu", torch.float32) for k, v in loaded.items()}


def _is_plain_tensor(value: object) -> bool:
    """Whether it is a complete tensor of real numbers."""
    import torch

    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return False
    if value.is_meta or value.is_quantized or value.is_complex():
        return False
    # by repeating the same bytes, a tensor can claim a size that its file does not have
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _describe(value: object) -> str:
    import torch

    if isinstance(value, torch.Tensor) and not _is_plain_tensor(value):
        return f"a Tensor of {value.dtype}, {value.layout} on {value.device}"
    return f"an empty {type(value).__name__}" if value == {} else f"a {type(value).__name__}"


def _is_safetensors(path: Path) -> bool:
    """By its name, or by its content: eight bytes of length, then JSON."""
    if path.suffix.lower() == ".safetensors":
        return True
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _load_safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    with reading_safetensors(path):
        return load_file(path)


@contextmanager
def reading_safetensors(path: Path) -> Iterator[None]:
    """`TruncatedWeightsError` for whatever the reader says of a damaged file."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise TruncatedWeightsError(
            f"{path} is no complete safetensors file ({error}): get it again"
        ) from error


def _load_pth(path: Path) -> Any:
    import torch

    try:
        pickled = _pickle_of(path)
        if not pickled.startswith(b"\x80"):
            raise pickle.UnpicklingError("not a pickle by PyTorch")
        with warnings.catch_warnings():  # unusual files are either errors or fine here
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnsafeWeightsError:
        raise
    except pickle.UnpicklingError as error:
        if _names_code(pickled):
            raise _unsafe(path) from error
        reason: Exception = error
    except Exception as error:  # for a damaged file, the reader raises all kinds of errors
        reason = error
    size = path.stat().st_size
    raise TruncatedWeightsError(
        f"{path} ({size} bytes) is no complete PyTorch file: get it again"
    ) from reason


def _unsafe(path: Path) -> UnsafeWeightsError:
    return UnsafeWeightsError(
        f"{path} contains Python code instead of plain tensors; it was not executed. Ask its "
        "author for a .safetensors file"
    )


def _pickle_of(path: Path) -> bytes:
    """The pickle of a PyTorch file: `data.pkl` of an archive, or the file itself."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return file.read(LARGEST_PICKLE)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if any("/code/" in name for name in names):  # as torch.jit.save writes it
            raise _unsafe(path)
        name = next(name for name in names if name.endswith("data.pkl"))
        with archive.open(name) as part:
            return part.read(LARGEST_PICKLE)


def _names_code(data: bytes) -> bool:
    """Whether one of the complete pickles at the start of `data` names Python objects.

    An incomplete one does not count: truncation is another error. Executes nothing.
    """
    stream, found = io.BytesIO(data), False
    with suppress(ValueError):  # where the pickles end
        while stream.tell() < len(data):
            names = {operation.name for operation, *_ in pickletools.genops(stream)}
            found = found or not CODE.isdisjoint(names)
    return found


def load_backbone(file: WeightsFile, scale: int) -> CFSR:
    """A CFSR in merged form, in evaluation mode, on the CPU.

    Raises `ArchitectureError` if the tensors do not belong to a CFSR, `ScaleError` if they belong
    to one for another scale.
    """
    network = open_backbone(file.path)
    if network.config.scale != scale:
        raise ScaleError(
            f"expected weights for scale x{scale}, got {file.path} for x{network.config.scale}: "
            f"choose scale {network.config.scale} or another file"
        )
    return network


def backbone_arrays(file: WeightsFile, scale: int) -> Arrays:
    """Weights by name of a CFSR in merged form, cached: only the first call needs torch.

    Raises as `load_backbone` does.
    """
    made_from = {"weights": file.sha256, "form": f"CFSR merged 1, x{scale}"}
    return engine_cache.arrays(made_from, lambda: _as_arrays(load_backbone(file, scale)))


def _as_arrays(network: Module) -> Arrays:
    return {name: value.numpy() for name, value in network.state_dict().items()}


def open_backbone(path: Path) -> CFSR:
    """A CFSR for any scale, otherwise like `load_backbone`."""
    from napari_cfsr.core.network import CFSR, CFSRConfig, config_of

    state = load_state(path)
    in_training_form = any(".edge_" in k for k in state)
    try:
        config = config_of(state)
        if sum(config.depths) > len(state) or config.embed_dim > state["norm.bias"].numel():
            raise ValueError("its names and shapes do not match")  # before memory is allocated
        network = CFSR(CFSRConfig(**{**vars(config), "merged": not in_training_form}))
        network.load_state_dict(state)
    except (KeyError, IndexError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise ArchitectureError(
            f"{path} holds another network than CFSR ({len(state)} tensors, the first is "
            f"{next(iter(state))!r}): {_first_lines(error)}"
        ) from error
    return (network.merge() if in_training_form else network).eval()


def _first_lines(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:2])


@dataclass(frozen=True)
class RefinerCard:
    """What is known about a refiner, from the metadata of its file."""

    scale: int  # of the backbone; 0: of any
    placement: Placement  # where it runs
    backbone_sha256: str  # the backbone it was trained on; empty: for any
    description: str = ""  # one line, for people
    gain: float | None = None  # dB over the frozen backbone on held-out images
    # degradation, configuration, seed, date, version
    extra: dict[str, Any] = field(default_factory=dict)
    network: str = "RefineNet"  # one of `napari_cfsr.core.network.REFINER_FIELDS`

    def to_metadata(self) -> dict[str, str]:
        card = dict(vars(self))
        if self.network == "RefineNet":  # as in files of earlier versions, which these can read
            del card["network"]
        return {"format": REFINER_FORMAT, "card": json.dumps(card, sort_keys=True)}

    def fits(self, scale: int, backbone_sha256: str | None) -> bool:
        """Whether it can run with a backbone for that scale."""
        return self.scale in (0, scale) and self.backbone_sha256 in ("", backbone_sha256)


def read_refiner_card(path: Path) -> RefinerCard:
    """Read the metadata of a refiner file; needs no torch.

    Raises
    ------
    WeightsNotFoundError, TruncatedWeightsError, ArchitectureError
        No such file, an incomplete safetensors file, or not a refiner.
    """
    from safetensors import safe_open

    if file_named(path) is None:
        raise WeightsNotFoundError(f"expected a refiner file, got {path}: there is no such file")
    if not _is_safetensors(path):
        raise ArchitectureError(
            f"expected a refiner with metadata '{REFINER_FORMAT}', got {path}, which is no "
            "safetensors file"
        )
    with reading_safetensors(path), safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
    if metadata.get("format") != REFINER_FORMAT:
        raise ArchitectureError(
            f"expected a refiner with metadata '{REFINER_FORMAT}', got {path} with "
            f"{metadata.get('format', 'none')}"
        )
    try:
        card = RefinerCard(**json.loads(metadata["card"]))
        _check_card(card)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArchitectureError(f"{path}: the refiner's card can't be read ({error})") from error
    return card


def _check_card(card: RefinerCard) -> None:
    """Raise `TypeError` or `ValueError` unless every entry has the right type; needs no torch."""
    kinds: dict[str, Any] = {"scale": int, "backbone_sha256": str, "description": str}
    kinds |= {"gain": int | float | None, "extra": dict}
    for name, kind in kinds.items():
        if not isinstance(getattr(card, name), kind):
            raise TypeError(f"{name} is {getattr(card, name)!r}")
    if card.placement not in ("output", "input"):
        raise ValueError(f"expected placement output or input, got {card.placement!r}")
    if "noise" in card.extra:
        NoiseModel(**card.extra["noise"])  # raises
    if card.network not in REFINER_FIELDS:
        raise ValueError(f"expected network {', '.join(REFINER_FIELDS)}, got {card.network!r}")


def save_refiner(path: Path, state: Mapping[str, Any], card: RefinerCard) -> Path:
    """Write a refiner with its card, all of it or nothing; needs no torch.

    `state` are weights by name, as from `RefineNet.state_dict`: arrays or CPU tensors. A file of
    that name is replaced. Raises `WeightsError` if it can't be written.
    """
    from safetensors.numpy import save

    arrays = {k: np.ascontiguousarray(v, np.float32) for k, v in state.items()}
    with atomic_write(path, overwrite=True, make_folders=False, error=WeightsError) as file:
        file.write(save(arrays, card.to_metadata()))
    return path


def load_refiner(file: WeightsFile, backbone: WeightsFile) -> tuple[Refiner, RefinerCard]:
    """A refiner in evaluation mode, on the CPU, that was trained on `backbone`.

    Raises `RefinerMismatchError` if it was trained on another one, `ArchitectureError` if it is not
    the network that its card names.
    """
    _check_match(file, read_refiner_card(file.path), backbone)
    return open_refiner(file.path)


def refiner_arrays(file: WeightsFile, backbone: WeightsFile) -> tuple[Arrays, RefinerCard]:
    """Weights by name, cached: only the first call needs torch. Otherwise like `load_refiner`."""
    card = read_refiner_card(file.path)
    _check_match(file, card, backbone)
    made_from = {"weights": file.sha256, "form": f"{card.network} 1"}
    return engine_cache.arrays(made_from, lambda: _as_arrays(open_refiner(file.path)[0])), card


def _check_match(file: WeightsFile, card: RefinerCard, backbone: WeightsFile) -> None:
    """Raise `RefinerMismatchError` unless a refiner was trained on a backbone."""
    if card.backbone_sha256 not in ("", backbone.sha256):
        wanted = card.extra.get("backbone", "")
        raise RefinerMismatchError(
            f"{file.path} was trained on another backbone: it wants {wanted} x{card.scale} with "
            f"SHA-256 {card.backbone_sha256}, got {backbone.name} with {backbone.sha256}"
        )


def open_refiner(path: Path) -> tuple[Refiner, RefinerCard]:
    """A refiner in evaluation mode, on the CPU, whatever its backbone; raises `WeightsError`."""
    from napari_cfsr.core.network import make_refiner

    card = read_refiner_card(path)
    network = make_refiner(card.network)
    try:
        network.load_state_dict(load_state(path))
    except RuntimeError as error:
        raise ArchitectureError(
            f"{path} holds another network than {card.network}: {_first_lines(error)}"
        ) from error
    return network.eval(), card
