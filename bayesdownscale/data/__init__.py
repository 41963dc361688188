"""The edges: grids and labels, files in, files out, datasets."""
