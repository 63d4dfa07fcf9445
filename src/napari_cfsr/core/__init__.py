"""Super-resolution on arrays. Knows numpy, torch, dask and scikit-image; never napari or Qt."""
