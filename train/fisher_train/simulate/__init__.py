"""Simulated machines: physics-based waves with known faults, for pre-training without recordings.

Start at `machine` (what a machine is, and its wave). `family` draws what contrastive training uses, `catalogue` knows
machines by name, `source` offers them to the gateway. Nothing is imported here, so that `cli` stays light.
"""
