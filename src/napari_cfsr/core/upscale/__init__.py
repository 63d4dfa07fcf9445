"""One run over an array: resolve the request, cut tiles, predict, stitch.

Also dask arrays, and the provenance of a result."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
