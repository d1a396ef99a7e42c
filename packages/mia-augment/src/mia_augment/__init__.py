"""Turn single-image instruction data into multi-image data: sequences, grids, pic-in-pic."""
