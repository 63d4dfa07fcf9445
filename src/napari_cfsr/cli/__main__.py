"""`python -m napari_cfsr.cli`."""

from napari_cfsr.cli import main

raise SystemExit(main())
