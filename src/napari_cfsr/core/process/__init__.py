"""Networks and trainings in child processes: both ends, and the pipes between them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
