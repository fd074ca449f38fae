"""One run from its first step to its last: settings, weights, optimiser, processes, log and checkpoints.

Start at `settings`; `fisher_train.loop` puts the parts together.
"""
