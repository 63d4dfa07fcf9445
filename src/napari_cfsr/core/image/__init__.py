"""Image processing without a network.

Axes, intensity, tiles, resizing, degradation, noise estimation, registration, conventional
methods."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
