"""napari widgets: they read a form, start a worker and show what comes back."""
