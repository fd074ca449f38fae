"""The search for what stays in float: as little work as passes the gate."""

import micro
import numpy as np
import pytest

from fisher_export.graph import build_graph
from fisher_export.ort_runs import ort_embedder
from fisher_export.products import multiply_adds, weight_products
from fisher_export.quantise import quantise_dynamic_int8
from fisher_export.search import MOST_IN_FLOAT, choose, search
from fisher_export.verify import cut

COST = {"cheap": 1, "fair": 10, "dear": 10, "rest": 79}


def loads(**values: list[float]) -> dict[str, np.ndarray]:
    """Loads of the groups by product."""
    return {name: np.array(values.get(name, [0.0, 0.0])) for name in COST}


def test_nothing_stays_in_float_where_all_passes() -> None:
    """Sums below the limit need no product in float."""
    assert choose(loads(cheap=[0.4, 0.1], rest=[0.5, 0.2]), COST) == (set(), [])


def test_product_that_takes_most_off_for_its_work_comes_first() -> None:
    """Equal loads: the cheap one; equal work: the larger load; and no more than is needed."""
    assert choose(loads(cheap=[0.6, 0.0], fair=[0.6, 0.0]), COST)[0] == {"cheap"}
    assert choose(loads(fair=[0.8, 0.0], dear=[0.6, 0.0]), COST)[0] == {"fair"}


def test_only_groups_that_fail_count() -> None:
    """A large load in a group that passes buys nothing."""
    assert choose(loads(fair=[0.0, 0.9], dear=[0.8, 0.0], rest=[0.4, 0.0]), COST)[0] == {"dear"}


def test_group_that_cannot_be_had_is_given_up() -> None:
    """What only float throughout would mend is hopeless; the others are chosen for as if it were not there."""
    kept, hopeless = choose(loads(cheap=[0.0, 90.0], fair=[0.7, 5.0], rest=[0.5, 50.0]), COST)
    assert (kept, hopeless) == ({"fair"}, [1])


def test_work_in_float_is_limited() -> None:
    """The product with nearly all the work never stays in float."""
    kept, hopeless = choose(loads(rest=[3.0, 0.0]), COST)
    assert (kept, hopeless) == (set(), [0])
    assert sum(COST[name] for name in kept) <= MOST_IN_FLOAT * sum(COST.values())


def test_search_finds_the_product_that_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one product that fails the gate is kept in float, and the same each time."""
    checkpoint = micro.micro_checkpoint()
    graph = build_graph(checkpoint)
    spoilt = "blocks.0.mlp.fc2.weight"
    excerpts = cut(micro.signals(), checkpoint.front_end)
    before = ort_embedder(graph)(excerpts.bands)

    def quantise(in_float: object) -> object:
        """Quantise, but make one product much worse than int8."""
        model = quantise_dynamic_int8(graph, in_float)  # type: ignore[arg-type]
        if spoilt not in in_float:  # type: ignore[operator]
            (scale,) = [tensor for tensor in model.graph.initializer if tensor.name == f"{spoilt}_scale"]
            values = np.frombuffer(scale.raw_data, np.float32) * np.linspace(-1, 1, len(scale.raw_data) // 4)
            scale.raw_data = values.astype(np.float32).tobytes()
        return model

    monkeypatch.setattr("fisher_export.search.MOST_IN_FLOAT", 0.4)
    found = search(graph, quantise, ort_embedder, excerpts, before, 25)  # type: ignore[arg-type]
    assert spoilt in found
    assert len(found) < 4
    assert search(graph, quantise, ort_embedder, excerpts, before, 25) == found  # type: ignore[arg-type]


def test_work_of_the_last_block_is_that_of_one_token() -> None:
    """Its queries and its MLP see [CLS] alone, its keys and values see all tokens."""
    cost = multiply_adds(weight_products(build_graph(micro.micro_checkpoint())), 25)
    assert cost["blocks.0.mlp.fc1.weight"] == 25 * cost["blocks.1.mlp.fc1.weight"] == 25 * 32 * 128
    assert cost["blocks.0.attn.query.weight"] == cost["blocks.1.attn.key.weight"] == 25 * 32 * 32
