"""Scale and backbone: the choices, what they mean, and whether the weights are on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from magicgui.widgets import ComboBox

from napari_cfsr.core.weights import (
    OFFICIAL_NOTICE,
    OFFICIAL_SHA256,
    SCALES,
    bundled_path,
    imported_backbones,
    official_name,
    official_path,
    sha256_of,
)
from napari_cfsr.widgets.parts.form import FROM_FILE, Form, narrow, path_edit
from napari_cfsr.widgets.parts.preferences import folder_fault, weights_folder

DEVICES = ("auto", "cpu", "cuda", "mps")

TOOLTIPS = {
    "scale": "How many times larger the result is in Y and X.",
    "backbone": "The frozen super-resolution network. auto: the CFSR authors' official weights if "
    "they are on this machine, else this plugin's own (bundled).",
    "backbone_file": "A .pth or .safetensors file with CFSR weights. Nothing in it is executed.",
    "device": "Where the network runs. auto: the GPU if there is one.",
}


def backbone_path(scale: int, backbone: str) -> tuple[Literal["official", "other"], str] | None:
    """The file of a choice, if it is on this machine."""
    if backbone in ("auto", "official"):
        path = official_path(scale, weights_folder())
        if path is not None:
            return "official", str(path)
        if backbone == "official":
            return None
    if backbone in ("auto", "bundled"):
        path = bundled_path(scale)
    else:
        path = next((p for p in imported_backbones() if backbone in (p.stem, str(p))), None)
    return ("other", str(path)) if path is not None else None


class BackboneForm(Form):
    """A form in which a backbone is chosen."""

    def __init__(self, changed: Callable[[], None], scale: int) -> None:
        super().__init__(changed)
        self.scale = ComboBox(choices=[(f"x{s}", s) for s in SCALES], value=scale)
        self.backbone = ComboBox(choices=self._backbones)
        self.backbone_file = path_edit("r", "*.pth *.pt *.safetensors")
        self.device = ComboBox(choices=DEVICES)
        narrow(self.backbone)

    def _backbones(self, _: Any) -> list[str]:
        return ["auto", "official", "bundled", *(p.stem for p in imported_backbones()), FROM_FILE]

    @property
    def own_backbone(self) -> bool:
        """Whether the backbone is a file of the user's."""
        return bool(self.backbone.value == FROM_FILE)

    def choose_backbone(self, backbone: str) -> None:
        """Choose `auto`, `official`, `bundled`, an imported name or a file."""
        if backbone in self.backbone.choices:
            self.backbone.value = backbone
        else:
            self.backbone.value = FROM_FILE
            self.backbone_file.value = backbone

    def load_arguments(self) -> dict[str, Any]:
        """Arguments of `load_model`; downloads are requested separately."""
        folder = weights_folder()
        return {
            "scale": self.scale.value,
            "backbone": str((self.backbone_file if self.own_backbone else self.backbone).value),
            "device": self.device.value,
            "download": False,
            "weights_folder": None if folder is None else str(folder),
        }

    def backbone_sha256(self) -> str | None:
        """Hash of the chosen backbone; None if it is not known yet."""
        scale = self.scale.value
        if self.own_backbone:
            path = self.backbone_file.value
            return sha256_of(path) if path and path.is_file() else None
        found = backbone_path(scale, self.backbone.value)
        if found is None:
            return OFFICIAL_SHA256[scale] if self.backbone.value != "bundled" else None
        kind, name = found
        return OFFICIAL_SHA256[scale] if kind == "official" else sha256_of(Path(name))

    @property
    def fetchable(self) -> bool:
        """Whether official weights would be used but have not been downloaded."""
        wanted = self.backbone.value in ("auto", "official")
        return wanted and official_path(self.scale.value, weights_folder()) is None

    def network_reason(self) -> str:
        """Why the network can't be used now; empty if it can."""
        scale, backbone = self.scale.value, self.backbone.value
        if self.own_backbone:
            return "" if self.backbone_file.value.is_file() else "Choose a backbone file."
        if self.fetchable and (fault := folder_fault()):
            return fault
        if backbone_path(scale, backbone) is not None:
            return ""
        if backbone == "bundled":
            return f"This version has no bundled x{scale} backbone: choose auto."
        folder = weights_folder()
        where = f", nor is {official_name(scale)} in {folder}" if folder else ""
        return (
            f"The official x{scale} weights are not on this machine yet{where}. {OFFICIAL_NOTICE}"
        )
