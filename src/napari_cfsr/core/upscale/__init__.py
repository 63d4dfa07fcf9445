"""One run over an array.

Resolve the request, cut tiles, predict, stitch; dask arrays; provenance."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
