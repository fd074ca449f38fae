"""Which products of an encoder stay in float: as little work as passes the gate, by measurement. See `search`.

What quantising one product changes adds up over products, almost exactly. So each is measured once, alone, and the
choice is made on the sums, then confirmed on the whole.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from fisher_edge.dsp.blocks import FloatArray
from fisher_export.gate import Group
from fisher_export.products import multiply_adds, weight_products
from fisher_export.verify import Embed, Excerpts

__all__ = ["MOST_IN_FLOAT", "Quantise", "choose", "search"]

Quantise = Callable[[Collection[str]], onnx.ModelProto]
"""A model whose products of these weights stay in float, and all others are quantised."""
Run = Callable[[onnx.ModelProto], Embed]
Loads = Mapping[str, npt.NDArray[np.float64]]
"""By product: the load (see gate.py) of every group when this product alone is quantised."""

MOST_IN_FLOAT = 0.25
"""Largest share of multiply-adds in float: beyond it quantisation saves too little time."""
ROUNDS = 4
# Every round that is not confirmed asks the sums for so much less.
STRICTER = 0.8
# Load below which a group says nothing about products.
SMALLEST_LOAD = 1e-9
# Pieces of each rate that products are ranked on.
RANKING_PIECES = 24


def search(
    model: onnx.ModelProto, quantise: Quantise, run: Run, excerpts: Excerpts, before: Sequence[FloatArray], tokens: int
) -> tuple[str, ...]:
    """Return the weights of the products that stay in float, in the order of the graph.

    `before` are the embeddings of `excerpts.bands` in float32; `tokens` those of a usual sub-band, which weigh the
    products. Groups that no affordable choice makes faithful are left as they are.
    """
    products = weight_products(model)
    names = [product.weight for product in products]
    cost = multiply_adds(products, tokens)
    few = excerpts.thinned(RANKING_PIECES)

    def groups(in_float: Collection[str], shown: Excerpts) -> list[Group]:
        parts = sorted({index for part in (*shown.pieces, *shown.windows) for index in part})
        after = dict(zip(parts, run(quantise(in_float))([shown.bands[index] for index in parts]), strict=True))
        return shown.groups(before, [after.get(index, rows) for index, rows in enumerate(before)])

    everything = _loads(groups((), excerpts))
    if everything.max() <= 1:
        return ()
    floor = _loads(groups(names, few))
    loads = {
        name: np.maximum(_loads(groups([other for other in names if other != name], few)) - floor, 0) for name in names
    }
    # The excerpts for ranking are few, and changes add up almost exactly: bring the sums to what all show.
    scale = everything / np.maximum(np.sum(list(loads.values()), axis=0), SMALLEST_LOAD)
    loads = {name: load * scale for name, load in loads.items()}
    allowed = 1.0
    for _ in range(ROUNDS):
        kept, hopeless = choose(loads, cost, allowed)
        if np.delete(_loads(groups(kept, excerpts)), hopeless).max(initial=0) <= 1:
            break
        allowed *= STRICTER
    return tuple(name for name in names if name in kept)


def choose(loads: Loads, cost: Mapping[str, int], allowed: float = 1.0) -> tuple[set[str], list[int]]:
    """Return the products to keep in float until no group's summed load exceeds `allowed`, and the hopeless groups.

    Each time that product which takes most off the loads that are too high, for its multiply-adds. When these reach
    `MOST_IN_FLOAT`, the group with the highest load is given up and the choice begins again.
    """
    hopeless: list[int] = []
    while True:
        kept = _greedy(loads, cost, allowed, hopeless)
        left = _left(loads, kept, hopeless)
        if left.max(initial=0) <= allowed:
            return kept, hopeless
        hopeless.append(int(left.argmax()))


def _greedy(loads: Loads, cost: Mapping[str, int], allowed: float, hopeless: Sequence[int]) -> set[str]:
    """Keep products in float while a load is too high and one more is affordable."""
    kept: set[str] = set()
    budget = MOST_IN_FLOAT * sum(cost.values())
    while True:
        left = _left(loads, kept, hopeless)
        high = left > allowed
        spent = sum(cost[name] for name in kept)
        affordable = [name for name in loads if name not in kept and spent + cost[name] <= budget]
        if not high.any() or not affordable:
            return kept
        worth = {name: float((loads[name][high] / left[high]).sum()) / cost[name] for name in affordable}
        kept.add(max(affordable, key=worth.__getitem__))


def _left(loads: Loads, kept: Collection[str], hopeless: Sequence[int]) -> npt.NDArray[np.float64]:
    """Summed loads of what is still quantised, 0 for hopeless groups."""
    groups = len(next(iter(loads.values())))
    left = np.sum([load for name, load in loads.items() if name not in kept], axis=0) if len(kept) < len(loads) else 0
    found = np.zeros(groups) + left
    found[list(hopeless)] = 0
    return np.asarray(found)


def _loads(groups: Sequence[Group]) -> npt.NDArray[np.float64]:
    """Load of each group."""
    return np.array([group.load for group in groups])
