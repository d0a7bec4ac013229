"""Showing a dataset: ``page`` writes an HTML file, ``rerun`` fills the Rerun viewer. Neither changes it."""
