"""Encoders behind one interface: a window of any signal in, one vector out. Start at `open_adapter`."""

from fisher_bench.rmis.adapters.adapter import Adapter
from fisher_bench.rmis.adapters.spec import FAMILIES, open_adapter

__all__ = ["FAMILIES", "Adapter", "open_adapter"]
