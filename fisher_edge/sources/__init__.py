"""Where samples come from: each source yields time-stamped blocks. Start at `source.py`, the contract of a source.

A package brings a type of source of its own through the entry-point group `fisher_edge.sources`: see
`fisher_edge.config.plugins`.
"""
