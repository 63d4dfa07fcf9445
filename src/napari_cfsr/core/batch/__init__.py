"""Files in, files out.

Which inputs are meant, where results go, and what a folder already holds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
