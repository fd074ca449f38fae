"""From the segments of a prepared set to embeddings. Start at `run.embed_set`.

`clip` is the arithmetic of one file, `cache` keeps every embedding ever made with a model, `local` computes in
processes of this machine and `cluster` on Ray.
"""
