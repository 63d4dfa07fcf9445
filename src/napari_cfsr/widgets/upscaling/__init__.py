"""The Upscale page: a layer in, layers out that lie exactly over it."""
