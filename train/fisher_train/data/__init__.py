"""What feeds training: pairs of simulated machines, with recordings where there are any. Start at `batches.batches`."""
