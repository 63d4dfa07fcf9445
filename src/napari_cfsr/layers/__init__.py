"""napari layers to arrays and back.

What a layer holds, where a result lies, which part is meant."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
