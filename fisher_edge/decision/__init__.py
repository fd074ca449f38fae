"""From embeddings to verdicts: memory bank, threshold, alarm logic, enrollment."""
