"""From embeddings to the scores of the benchmark.

`files` reads what is scored; `anomaly` and `diagnosis` are the two protocols; `score` picks the one of a set and
`table` puts the scores of all sets together.
"""
