"""Reading and writing images: PNG, JPEG, TIFF and OME-Zarr; whole files or none."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
