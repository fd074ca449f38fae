"""Benchmarks: accuracy on labelled recordings and latency beside the reference code path."""
