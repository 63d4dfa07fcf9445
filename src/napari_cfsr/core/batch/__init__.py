"""Upscaling many files: which inputs, where results go, and what is finished already."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
