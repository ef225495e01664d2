"""Stage 1: the Zarr store and everything that writes, verifies or shows what is in it."""
