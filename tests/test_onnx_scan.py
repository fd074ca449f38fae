"""The search for external data: found wherever a tensor can hide, and damaged bytes never do worse than be refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fisher_edge.encoder.onnx_scan import has_external_data
from fisher_edge.errors import BadArtifactError


def tensor(name: str, *, external: bool) -> onnx.TensorProto:
    """Small tensor, with its data inside or elsewhere."""
    found = numpy_helper.from_array(np.arange(6, dtype=np.float32), name)
    if external:
        onnx.external_data_helper.set_external_data(found, "../../secret.bin")
        found.ClearField("raw_data")
    return found


def constant(*, external: bool) -> onnx.NodeProto:
    """Constant node."""
    return helper.make_node("Constant", [], ["c"], value=tensor("value", external=external))


def graph(
    nodes: list[onnx.NodeProto] | None = None, initializers: list[onnx.TensorProto] | None = None
) -> onnx.GraphProto:
    """Graph with some nodes and initialisers between two harmless ones."""
    harmless = tensor("harmless", external=False)
    return helper.make_graph(
        [constant(external=False), *(nodes or [])],
        "graph",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [6])],
        [harmless, *(initializers or []), harmless],
    )


def in_initialiser(*, external: bool) -> onnx.ModelProto:
    """Among the weights."""
    return helper.make_model(graph(initializers=[tensor("weight", external=external)]))


def in_constant(*, external: bool) -> onnx.ModelProto:
    """In the attribute of a Constant node."""
    return helper.make_model(graph([constant(external=external)]))


def in_list_of_tensors(*, external: bool) -> onnx.ModelProto:
    """In an attribute that is a list of tensors."""
    node = helper.make_node("Custom", [], ["d"], domain="custom", values=[tensor("v", external=external)] * 2)
    return helper.make_model(graph([node]))


def in_subgraph(*, external: bool) -> onnx.ModelProto:
    """In a branch of an If inside a branch of an If."""
    inner = helper.make_node("If", ["c"], ["d"], then_branch=graph(), else_branch=graph([constant(external=external)]))
    return helper.make_model(graph([helper.make_node("If", ["c"], ["d"], then_branch=graph([inner]))]))


def in_list_of_graphs(*, external: bool) -> onnx.ModelProto:
    """In an attribute that is a list of graphs."""
    bodies = [graph(), graph(initializers=[tensor("weight", external=external)])]
    return helper.make_model(graph([helper.make_node("Custom", [], ["d"], domain="custom", bodies=bodies)]))


def in_function(*, external: bool) -> onnx.ModelProto:
    """In a node of a local function."""
    function = helper.make_function("local", "f", [], ["c"], [constant(external=external)], [])
    return helper.make_model(graph(), functions=[function])


def in_default_of_function(*, external: bool) -> onnx.ModelProto:
    """In the default value of a local function's attribute."""
    default = helper.make_attribute("value", tensor("value", external=external))
    function = helper.make_function("local", "f", [], ["c"], [constant(external=False)], [], attribute_protos=[default])
    return helper.make_model(graph(), functions=[function])


def in_sparse_initialiser(*, external: bool) -> onnx.ModelProto:
    """In the values of a sparse weight."""
    indices = numpy_helper.from_array(np.arange(6), "indices")
    model = helper.make_model(graph())
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(tensor("values", external=external), indices, [100])
    )
    return model


def in_sparse_constant(*, external: bool) -> onnx.ModelProto:
    """In the sparse value of a Constant node."""
    indices = numpy_helper.from_array(np.arange(6), "indices")
    sparse = helper.make_sparse_tensor(tensor("values", external=external), indices, [100])
    return helper.make_model(graph([helper.make_node("Constant", [], ["d"], sparse_value=sparse)]))


def in_training_info(*, external: bool) -> onnx.ModelProto:
    """In the graph that initialises training."""
    model = helper.make_model(graph())
    model.training_info.add().initialization.CopyFrom(graph(initializers=[tensor("weight", external=external)]))
    return model


PLACES = [
    in_initialiser,
    in_constant,
    in_list_of_tensors,
    in_subgraph,
    in_list_of_graphs,
    in_function,
    in_default_of_function,
    in_sparse_initialiser,
    in_sparse_constant,
    in_training_info,
]


def judge(data: bytes) -> bool | None:
    """Tell what was found, None when the bytes were refused."""
    try:
        return has_external_data(data)
    except BadArtifactError:
        return None


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_found_where_it_hides(place: object, external: bool) -> None:
    """External data is found in every place that can hold a tensor, and nothing is suspected without it."""
    assert callable(place)
    assert has_external_data(place(external=external).SerializeToString()) is external


@pytest.mark.parametrize("part", ["location", "entries"])
def test_half_a_reference_is_found(part: str) -> None:
    """The mark of external data alone, or its entries alone, are enough."""
    weight = tensor("weight", external=True)
    weight.ClearField("external_data" if part == "location" else "data_location")
    assert has_external_data(helper.make_model(graph(initializers=[weight])).SerializeToString())


def test_a_model_saved_with_external_data_is_found(tmp_path: Path) -> None:
    """External data that the onnx package itself writes is found."""
    model = in_initialiser(external=False)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.bin")
    assert (tmp_path / "m.bin").is_file()
    assert has_external_data((tmp_path / "m.onnx").read_bytes())


def test_a_second_graph_field_is_searched() -> None:
    """Parsers merge a repeated field: a reference in the second part of a split graph is found."""
    clean, bad = (in_initialiser(external=external).SerializeToString() for external in (False, True))
    assert onnx.load_from_string(clean + bad).graph.initializer[4].data_location == TensorProto.EXTERNAL
    assert has_external_data(clean + bad)


def test_every_cut_is_refused_or_harmless() -> None:
    """A model cut short anywhere is a BadArtifactError, unless it ends between two fields."""
    model = in_subgraph(external=False).SerializeToString()
    refused = sum(judge(model[:end]) is None for end in range(len(model)))
    assert refused > 0.9 * len(model)


def test_deep_nesting_is_refused() -> None:
    """Graphs nested without end are refused before Python's own limit."""
    data = b""
    for field in (6, 5, 1) * 20 + (7,):  # a graph in an attribute in a node in a graph ... in a model
        length = len(data)
        data = bytes([field << 3 | 2, length & 0x7F | 0x80, length >> 7]) + data
    with pytest.raises(BadArtifactError, match="nested deeper"):
        has_external_data(data)


@pytest.mark.parametrize(
    "data", [b"\xff" * 20, b"\x0b", b"\x3a\xff\xff\xff\xff\x7f", b"\x3a", b"\x80", b"\x3a\x05abc", b"\x39\x00"]
)
def test_malformed_bytes_are_refused(data: bytes) -> None:
    """Endless numbers, groups and lengths past the end are not a whole ONNX file."""
    with pytest.raises(BadArtifactError, match="not a whole ONNX file"):
        has_external_data(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_judged(data: bytes) -> None:
    """No bytes raise anything but BadArtifactError."""
    assert judge(data) in {None, True, False}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_altered_models_never_hide_external_data(data: st.DataObject) -> None:
    """Whatever bytes change, a model that the onnx package still reads as external is found or refused."""
    model = bytearray(in_subgraph(external=True).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        model[data.draw(st.integers(0, len(model) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = onnx.load_from_string(bytes(model))
    except Exception:  # noqa: BLE001 -- protobuf's decoding error has no public name
        return
    assert judge(bytes(model)) in {None, True} or not any(
        tensor.data_location == TensorProto.EXTERNAL for tensor in onnx.external_data_helper._get_all_tensors(parsed)
    )
