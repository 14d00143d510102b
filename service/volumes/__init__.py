"""Volumes on their way out: the canvas on the model's grid, NIfTI files, chunks."""
