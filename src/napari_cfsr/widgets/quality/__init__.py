"""The Quality page: layers measured against a reference layer."""
