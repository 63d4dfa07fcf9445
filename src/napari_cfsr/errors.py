"""What can go wrong, in the words of the person it happens to.

Every message says what was expected, what came and what to do. None of these classes is a
`RuntimeError`: napari's generator workers emit no signal for one, and the widget would wait for
ever.
"""

from __future__ import annotations


def reason(error: BaseException) -> str:
    """Why something failed, in one line: what the system or the error says, else its type."""
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    return next(iter(text.splitlines()), type(error).__name__)


class CFSRError(Exception):
    """Base of all errors this package raises on purpose."""


class ImageError(CFSRError, ValueError):
    """An image, its axes or its values can't be used."""


class OptionError(CFSRError, ValueError):
    """An option has a value that does not exist or does not fit the others."""


class StoreExistsError(OptionError):
    """A finished store, or one begun with another request, is there already; it was not touched."""


class WeightsError(CFSRError):
    """Weights can't be found, fetched or used."""

    def __str__(self) -> str:  # where a subclass is an OSError, that would print an errno
        return str(self.args[0]) if self.args else ""


class WeightsNotFoundError(WeightsError, FileNotFoundError):
    """No weights for this backbone, scale and machine."""


class DownloadError(WeightsError, OSError):
    """The download of published weights failed; nothing was kept of it."""


class TamperedWeightsError(WeightsError):
    """The file is not, byte for byte, the one that was published."""


class TruncatedWeightsError(WeightsError):
    """The file ends early or is not a weights file at all."""


class UnsafeWeightsError(WeightsError):
    """The file holds pickled code; it was not executed."""


class NotTensorsError(WeightsError):
    """The file can be read but holds something other than named tensors."""


class ArchitectureError(WeightsError):
    """The tensors belong to another network."""


class ScaleError(WeightsError, ValueError):
    """The weights are for another scale factor."""


class RefinerMismatchError(WeightsError):
    """The refiner was trained on another backbone."""


class DeviceError(CFSRError):
    """The requested device is not available, or failed."""


class OutOfMemoryError(CFSRError, MemoryError):
    """Even the smallest tile does not fit into memory."""


class ModelProcessError(CFSRError):
    """The process that runs the network ended without a result."""


class ClusterError(CFSRError):
    """A cluster can't be reached, was lost or is unsuitable; what was written is kept."""


class UnexpectedError(CFSRError):
    """A bug in the program; the cause says what happened."""


class FileFormatError(CFSRError):
    """An image file can't be read or written."""


class DivergedError(CFSRError):
    """A training diverged: its gradients were not finite for many steps in a row."""


class NoGainError(CFSRError):
    """A refiner does not beat the frozen backbone on held-out images; nothing was saved."""


class CancelledError(CFSRError):
    """The run was cancelled; there is no result."""
