"""From embeddings to verdicts: memory bank, calibration, evidence over time, alarms, names of faults, enrollment."""
