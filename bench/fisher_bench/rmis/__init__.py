"""RMIS, the benchmark of the FISHER paper: 19 public sets of machine signals, for any encoder.

The path of the data: `prepare` turns a publisher's download into labelled segments and an index, `embed` turns
segments into embeddings with an encoder of `adapters`, `scoring` turns embeddings into scores, `report` into
tables and plots. `catalogue` knows the sets, `published` what others measured. Source: arXiv 2507.16696 and the
released benchmark; where the two differ, the docstrings say which one is followed.
"""
