"""Loading weights safely: no file is ever executed, and each way to be wrong has its own error."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cfsr.core.weights import Kind, WeightsFile, refiner_files, sha256_of
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

    from napari_cfsr.core.cfsr import CFSR
    from napari_cfsr.core.refinenet import Placement, RefineNet

REFINER_FORMAT = "napari-cfsr refiner 1"


def load_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .pth, .pt or .safetensors file.

    Raises
    ------
    WeightsNotFoundError
        No such file.
    TruncatedWeightsError
        The file is incomplete or no weights file.
    UnsafeWeightsError
        It holds pickled code. Not executed.
    NotTensorsError
        It holds something else than tensors by name.
    """
    if not path.is_file():
        raise WeightsNotFoundError(f"expected a weights file, got {path}: there is no such file")
    loaded = _load_safetensors(path) if path.suffix == ".safetensors" else _load_pth(path)
    for key in ("params_ema", "params", "state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    import torch

    if not isinstance(loaded, Mapping) or not loaded:
        raise NotTensorsError(f"expected tensors by name in {path}, got {_describe(loaded)}")
    wrong = [k for k, v in loaded.items() if not isinstance(k, str) or not torch.is_tensor(v)]
    if wrong:
        raise NotTensorsError(
            f"expected tensors by name in {path}, got {_describe(loaded[wrong[0]])} as {wrong[0]!r}"
        )
    return {k: v.detach().to("cpu", torch.float32) for k, v in loaded.items()}


def _describe(value: object) -> str:
    return f"an empty {type(value).__name__}" if value == {} else f"a {type(value).__name__}"


def _load_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise TruncatedWeightsError(
            f"{path} is no complete safetensors file ({error}): get it again"
        ) from error


def _load_pth(path: Path) -> Any:
    import torch

    if not zipfile.is_zipfile(path) and path.read_bytes()[:1] != b"\x80":
        raise TruncatedWeightsError(
            f"{path} ({path.stat().st_size} bytes) is no complete PyTorch file: get it again"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error) or "Unsupported" in str(error):
            raise UnsafeWeightsError(
                f"{path} holds Python code instead of plain tensors; it was not executed. Ask its "
                "author for a .safetensors file"
            ) from error
        raise TruncatedWeightsError(f"{path} is no complete PyTorch file: get it again") from error
    except (RuntimeError, EOFError, KeyError, ValueError, OSError) as error:
        raise TruncatedWeightsError(
            f"{path} is no complete PyTorch file ({str(error).splitlines()[0]}): get it again"
        ) from error


def load_backbone(file: WeightsFile, scale: int) -> CFSR:
    """A CFSR in merged form, in evaluation mode, on the CPU.

    Raises
    ------
    ArchitectureError
        The tensors are not those of a CFSR.
    ScaleError
        They are, but for another scale.
    """
    from napari_cfsr.core.cfsr import CFSR, CFSRConfig, config_of

    state = load_state(file.path)
    in_training_form = any(".edge_" in k for k in state)
    try:
        config = config_of(state)
        network = CFSR(CFSRConfig(**{**vars(config), "merged": not in_training_form}))
        network.load_state_dict(state)
    except (KeyError, IndexError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise ArchitectureError(
            f"{file.path} holds another network than CFSR ({len(state)} tensors, the first is "
            f"{next(iter(state))!r}): {_first_lines(error)}"
        ) from error
    if config.scale != scale:
        raise ScaleError(
            f"expected weights for scale x{scale}, got {file.path} for x{config.scale}: choose "
            f"scale {config.scale} or another file"
        )
    return (network.merge() if in_training_form else network).eval()


def _first_lines(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:2])


@dataclass(frozen=True)
class RefinerCard:
    """What is known of a refiner, from the metadata of its file.

    Attributes
    ----------
    scale : int
        Scale of the backbone.
    placement : {"output", "input"}
        Where it runs.
    backbone_sha256 : str
        The backbone it was trained on.
    description : str
        One line for a person.
    gain : float or None
        dB over the frozen backbone on held-out images.
    extra : dict
        Degradation, configuration, seed, date, version.
    """

    scale: int
    placement: Placement
    backbone_sha256: str
    description: str = ""
    gain: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def to_metadata(self) -> dict[str, str]:
        return {"format": REFINER_FORMAT, "card": json.dumps(vars(self), sort_keys=True)}


def read_refiner_card(path: Path) -> RefinerCard:
    """Read the metadata of a refiner file; needs no torch.

    Raises
    ------
    WeightsNotFoundError, TruncatedWeightsError, ArchitectureError
        No file, not a safetensors file, or not a refiner.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsNotFoundError(f"expected a refiner file, got {path}: there is no such file")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise TruncatedWeightsError(
            f"{path} is no complete safetensors file ({error}): get it again"
        ) from error
    if metadata.get("format") != REFINER_FORMAT:
        raise ArchitectureError(
            f"expected a refiner with metadata '{REFINER_FORMAT}', got {path} with "
            f"{metadata.get('format', 'none')}"
        )
    try:
        return RefinerCard(**json.loads(metadata["card"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ArchitectureError(
            f"{path}: the refiner's metadata can't be read ({error})"
        ) from error


def save_refiner(path: Path, network: RefineNet, card: RefinerCard) -> None:
    """Write a refiner with its card, all of it or nothing."""
    from safetensors.torch import save_file

    partial = path.with_name(path.name + ".partial")
    try:
        state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
        save_file(state, partial, card.to_metadata())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def find_refiner(
    backbone: WeightsFile, refiner: str | os.PathLike[str] | None
) -> WeightsFile | None:
    """The refiner for a backbone: `"auto"`, None, the name of one on this machine, or a file."""
    if refiner is None or refiner == "none":
        return None
    if refiner != "auto" and Path(refiner).expanduser().is_file():
        path = Path(refiner).expanduser()
        return WeightsFile(path, sha256_of(path), "file")
    for path, kind, card in refiner_cards():
        if refiner == "auto":
            chosen = kind == "bundled" and card.extra.get("default", False)
            chosen = chosen and card.backbone_sha256 == backbone.sha256
        else:
            chosen = str(refiner) in (path.name, path.stem)
        if chosen:
            return WeightsFile(path, sha256_of(path), kind)
    if refiner == "auto":
        return None
    raise WeightsNotFoundError(
        f'expected refiner "auto", None, the name of a refiner or a file; got {str(refiner)!r}, '
        "which is none of them"
    )


def refiner_cards() -> list[tuple[Path, Kind, RefinerCard]]:
    """Every readable refiner on this machine with its card; unreadable ones are left out."""
    found = []
    for path, kind in refiner_files():
        try:
            found.append((path, kind, read_refiner_card(path)))
        except WeightsError:
            continue
    return found


def load_refiner(file: WeightsFile, backbone: WeightsFile) -> tuple[RefineNet, RefinerCard]:
    """A refiner in evaluation mode, on the CPU, that belongs to `backbone`.

    Raises
    ------
    RefinerMismatchError
        It was trained on another backbone.
    ArchitectureError
        It is not a RefineNet.
    """
    from napari_cfsr.core.refinenet import PLACEMENTS, RefineNet

    card = read_refiner_card(file.path)
    if card.backbone_sha256 != backbone.sha256:
        wanted = card.extra.get("backbone", "")
        raise RefinerMismatchError(
            f"{file.path} was trained on another backbone: it wants {wanted} x{card.scale} with "
            f"SHA-256 {card.backbone_sha256}, got {backbone.name} with {backbone.sha256}"
        )
    if card.placement not in PLACEMENTS:
        raise ArchitectureError(
            f"expected placement output or input, got {card.placement!r} in {file.path}"
        )
    network = RefineNet()
    try:
        network.load_state_dict(load_state(file.path))
    except RuntimeError as error:
        raise ArchitectureError(
            f"{file.path} holds another network than RefineNet: {_first_lines(error)}"
        ) from error
    return network.eval(), card
