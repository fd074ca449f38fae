"""From samples to windows of sub-bands: blocks, the front-end and its streaming form."""
