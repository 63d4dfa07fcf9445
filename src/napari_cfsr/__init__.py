"""Super-resolution of napari layers with a frozen CFSR backbone and a small trainable refiner.

The array API: arrays in, arrays out. Importing this package imports neither torch nor Qt; each
name is loaded when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
