"""At scale: ensembles of any length, drawn in jobs that do not depend on each other, into one Zarr store."""
