"""How a network is run: with torch or OpenVINO, on which device, in which precision."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
