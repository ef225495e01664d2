"""WebDataset tars: locating, reading, indexing and writing them."""
