"""From samples to pieces of sub-bands: blocks, the front-end, the grid of pieces, their stream, views and measures."""
