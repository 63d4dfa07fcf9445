"""Super-resolution on arrays, room by room. Never imports napari, Qt or magicgui."""
