"""From pieces to embeddings: the bundle, the encoders that run it, and the windows their readings make."""
