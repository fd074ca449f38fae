"""Looks for references to other files in an ONNX model without the onnx package.

A model may name external files for its weights, with any path. The runtime loads single files only, so it
walks the protobuf wire format of the model, along the fields that can hold a tensor, and reports the first
tensor whose data lie elsewhere. Field numbers: onnx.proto3 of ONNX 1.17.
"""

from collections.abc import Iterator

from fisher_edge.errors import BadArtifactError

__all__ = ["has_external_data"]

CHILDREN = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
TENSOR_EXTERNAL_DATA = 13
TENSOR_DATA_LOCATION = 14
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_DEPTH = 32


def has_external_data(model: bytes) -> bool:
    """Return whether any tensor of a serialised ONNX model refers to another file.

    Raises BadArtifactError when the bytes are not a well-formed model.
    """
    try:
        return _message_has_external(memoryview(model), "model", 0)
    except (IndexError, ValueError) as error:
        raise BadArtifactError(f"the model is not a whole ONNX file ({error}); export or copy it again") from error


def _message_has_external(data: memoryview, kind: str, depth: int) -> bool:
    """Search one message and its children."""
    if depth > MAX_DEPTH:
        raise ValueError(f"messages nested deeper than {MAX_DEPTH}")
    for field, value in _fields(data):
        if kind == "tensor" and (field == TENSOR_EXTERNAL_DATA or (field == TENSOR_DATA_LOCATION and value)):
            return True
        child = CHILDREN[kind].get(field)
        if child and isinstance(value, memoryview) and _message_has_external(value, child, depth + 1):
            return True
    return False


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value) of one message; a value is a number or the bytes of a nested field."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        field, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, position = _varint(data, position)
            yield field, value
            continue
        if wire == BYTES:
            length, position = _varint(data, position)
        elif wire in {FIXED64, FIXED32}:
            length = 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {wire} at byte {position}")
        if position + length > len(data):
            raise ValueError(f"it ends {position + length - len(data)} bytes too early")
        yield field, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """Read one base-128 number; return it and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"number longer than 10 bytes at byte {position}")
