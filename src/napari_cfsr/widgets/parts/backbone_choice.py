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


class BackboneChoice:
    """The widgets `scale`, `backbone` and `backbone_file` of a form."""

    def __init__(self, scale: int) -> None:
        self.scale = ComboBox(choices=[(f"x{s}", s) for s in SCALES], value=scale)
        self.backbone = ComboBox(choices=self._names)
        self.backbone_file = path_edit("r", "*.pth *.pt *.safetensors")
        narrow(self.backbone)

    def _names(self, _: Any) -> list[str]:
        return ["auto", "official", "bundled", *(p.stem for p in imported_backbones()), FROM_FILE]

    @property
    def from_file(self) -> bool:
        """Whether the backbone is a file of the user's."""
        return bool(self.backbone.value == FROM_FILE)

    @property
    def value(self) -> str:
        """Argument `backbone` of `load_model`."""
        return str(self.backbone_file.value if self.from_file else self.backbone.value)

    def choose(self, backbone: str) -> None:
        """Choose `auto`, `official`, `bundled`, an imported name or a file."""
        if backbone in self.backbone.choices:
            self.backbone.value = backbone
        else:
            self.backbone.value = FROM_FILE
            self.backbone_file.value = backbone

    @property
    def folder(self) -> str | None:
        """Argument `weights_folder` of `load_model`."""
        folder = weights_folder()
        return None if folder is None else str(folder)

    def sha256(self) -> str | None:
        """Hash of the chosen backbone; None if it is not known yet."""
        scale = self.scale.value
        if self.from_file:
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
        scale, backbone = self.scale.value, self.backbone.value
        if backbone not in ("auto", "official"):
            return False
        return official_path(scale, weights_folder()) is None

    @property
    def _missing(self) -> bool:
        return not self.from_file and backbone_path(self.scale.value, self.value) is None

    def reason(self) -> str:
        """Why the backbone can't be used now; empty if it can."""
        scale = self.scale.value
        if self.from_file and not self.backbone_file.value.is_file():
            return "Choose a backbone file."
        if self.fetchable and (fault := folder_fault()):
            return fault
        if not self._missing:
            return ""
        if self.backbone.value == "bundled":
            return f"This version has no bundled x{scale} backbone: choose auto."
        where = f", nor is {official_name(scale)} in {self.folder}" if self.folder else ""
        return (
            f"The official x{scale} weights are not on this machine yet{where}. {OFFICIAL_NOTICE}"
        )


class BackboneForm(Form):
    """A form in which a backbone is chosen."""

    def __init__(self, changed: Callable[[], None], scale: int) -> None:
        super().__init__(changed)
        self.backbone_choice = BackboneChoice(scale)
        self.scale = self.backbone_choice.scale
        self.backbone = self.backbone_choice.backbone
        self.backbone_file = self.backbone_choice.backbone_file
        self.device = ComboBox(choices=DEVICES)

    def load_arguments(self) -> dict[str, Any]:
        """Arguments of `load_model`; downloads are requested separately."""
        return {
            "scale": self.scale.value,
            "backbone": self.backbone_choice.value,
            "device": self.device.value,
            "download": False,
            "weights_folder": self.backbone_choice.folder,
        }
