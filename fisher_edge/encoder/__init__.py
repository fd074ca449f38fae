"""From windows to embeddings: the bundle and the inference session that runs it."""
