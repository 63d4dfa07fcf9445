"""What can go wrong, in the words of the person it happens to.

Every message says what was expected, what came and what to do. None of these classes is a
`RuntimeError`: one that is raised inside a napari generator worker emits no signal, and the
widget would wait for it for ever.
"""

from __future__ import annotations


class CFSRError(Exception):
    """Base of all errors this package raises on purpose."""


class ImageError(CFSRError, ValueError):
    """An image, its axes or its values can't be used as asked."""


class OptionError(CFSRError, ValueError):
    """An option has a value that does not exist or does not fit the others."""


class StoreExistsError(OptionError):
    """There is a store already, finished or begun with another request; it was not touched."""


class WeightsError(CFSRError):
    """Weights can't be found, fetched or used."""


class WeightsNotFoundError(WeightsError, FileNotFoundError):
    """No weights for this backbone, scale and machine."""

    def __str__(self) -> str:  # FileNotFoundError would print an errno
        return str(self.args[0]) if self.args else ""


class DownloadError(WeightsError, OSError):
    """The download of published weights failed; nothing was kept of it."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class TamperedWeightsError(WeightsError):
    """The file is not, byte for byte, the one that was published."""


class TruncatedWeightsError(WeightsError):
    """The file ends early or is not a weights file at all."""


class UnsafeWeightsError(WeightsError):
    """The file holds pickled code; it was not executed."""


class NotTensorsError(WeightsError):
    """The file can be read but holds something else than tensors by name."""


class ArchitectureError(WeightsError):
    """The tensors are those of another network."""


class ScaleError(WeightsError, ValueError):
    """The weights are for another scale factor."""


class RefinerMismatchError(WeightsError):
    """The refiner was trained on another backbone."""


class DeviceError(CFSRError):
    """The requested device is not available, or failed."""


class OutOfMemoryError(CFSRError, MemoryError):
    """Even the smallest tile does not fit in memory."""


class ModelProcessError(CFSRError):
    """The process that runs the network ended without an answer."""


class ClusterError(CFSRError):
    """A cluster can't be reached, was lost, or does not fit; what was written is kept."""


class UnexpectedError(CFSRError):
    """A fault of the program; the cause holds what happened."""


class FileFormatError(CFSRError):
    """An image file can't be read or written."""


class DivergedError(CFSRError):
    """A training has lost its way: gradients that are not finite, many steps in a row."""


class NoGainError(CFSRError):
    """A refiner does not beat the frozen backbone on held-out images; nothing was saved."""


class CancelledError(CFSRError):
    """The run was cancelled; no result."""
