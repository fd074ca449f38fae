"""Benchmarks: accuracy on labelled recordings and latency against the reference code path."""
