"""The Batch page: a folder of files, upscaled one after the other."""
