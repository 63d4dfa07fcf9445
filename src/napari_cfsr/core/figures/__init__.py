"""Comparison figures as papers show them: the whole image, and crops with their scores."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
