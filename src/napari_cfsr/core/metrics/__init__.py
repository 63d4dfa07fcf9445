"""PSNR, SSIM and error maps of two images, whole or masked, and tables of them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
