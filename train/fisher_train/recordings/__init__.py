"""Real recordings for pre-training: folders and shards of any rate, cut into sub-bands.

Start at `find` (what is there). `pairs.crop_pairs` gives pairs for contrastive training, `batches.loader` batches for
self-distillation. Nothing is imported here, so that `cli` stays light.
"""
