"""Evaluation on data sets: finding the images, running the models, scores and tables."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
