"""The judge: how well encoders and cheap spectra separate machine states, on the same windows and splits.

Start at `judge.evaluate`; `python -m fisher_bench.judge DATA_DIR --help` is its command.
"""
