"""What several pages share: run controls, choices, rows, plots, settings."""
