# ruff: noqa: ARG002, ARG005, N802 -- names and signatures are those of the libraries
"""A stand-in for a GPU: the calls of TensorRT and of the CUDA driver that the runtime makes, computed by ONNX Runtime.

TensorRT, as its Python reference has it from 10.3 (JetPack 6) to 11.4: Logger, Builder (create_network,
create_builder_config, create_optimization_profile, build_serialized_network), OnnxParser (parse, num_errors,
get_error), IBuilderConfig (set_memory_pool_limit, set_flag, clear_flag, add_optimization_profile),
IOptimizationProfile.set_shape, Runtime.deserialize_cuda_engine (None for what it refuses), ICudaEngine
(create_execution_context, get_tensor_dtype) and IExecutionContext (set_optimization_profile_async, set_input_shape,
set_tensor_address, get_tensor_shape, execute_async_v3). BuilderFlag.FP16 is gone in 11.

The driver: cuInit, cuDeviceGet, cuDeviceGetName, cuDeviceGetAttribute, cuDevicePrimaryCtxRetain, cuCtxSetCurrent,
cuStreamCreate, cuStreamSynchronize, cuMemAlloc, cuMemFree, both copies and cuGetErrorString.

What a GPU is strict about, this is too: copies and executions happen when the stream is synchronised, a thread needs a
context, memory has bounds, and a shape must lie within the profile. Half precision is a rounding of the result.
"""

import ctypes
import enum
import importlib.machinery
import json
import os
import sys
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import pytest

__all__ = ["StandIn", "install"]

MAGIC = b"stand-in engine\n"
INVALID_CONTEXT, INVALID_VALUE = 201, 1
STREAM = 77
CONTEXT = 55


@dataclass
class StandIn:
    """What was asked of the GPU: the names of `calls` in order, and how often an engine was built.

    Every build also adds a byte to the file `builds_file`, so that builds of several processes can be counted.
    """

    version: str = "10.3.0"
    gpu: str = "Orin"
    sm: tuple[int, int] = (8, 7)
    builds_file: str | None = None
    calls: list[str] = field(default_factory=list)
    builds: list[dict[str, Any]] = field(default_factory=list)
    memory: dict[int, Any] = field(default_factory=dict)
    queue: list[Callable[[], None]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)


def install(patch: pytest.MonkeyPatch, **facts: Any) -> StandIn:
    """Put the stand-in in the place of TensorRT and of the driver, and return its record."""
    record = StandIn(**facts)
    driver = _Driver(record)
    real = ctypes.CDLL
    patch.setattr(ctypes, "CDLL", lambda name, *rest: driver if name == "libcuda.so.1" else real(name, *rest))
    patch.setitem(sys.modules, "tensorrt", _tensorrt(record))
    return record


class _Driver:
    """The library of the driver: a function for each name that starts with `cu`."""

    def __init__(self, record: StandIn) -> None:
        self._record = record
        self._functions: dict[str, _Function] = {}

    def __getattr__(self, name: str) -> "_Function":
        if not name.startswith("cu"):
            raise AttributeError(name)
        return self._functions.setdefault(name, _Function(self._record, name))


class _Function:
    """One function of the driver; `argtypes` is set by whoever loads it, as with ctypes."""

    argtypes: Any = None

    def __init__(self, record: StandIn, name: str) -> None:
        self.record, self.name = record, name

    def __call__(self, *arguments: Any) -> int:
        record = self.record
        record.calls.append(self.name)
        if self.name.startswith(("cuMem", "cuStream")) and threading.get_ident() not in record.threads:
            return INVALID_CONTEXT
        code: int | None = getattr(self, f"_{self.name.removesuffix('_v2')}")(*arguments)
        return code or 0

    def _cuInit(self, flags: int) -> None:
        assert flags == 0

    def _cuDeviceGet(self, device: Any, ordinal: int) -> None:
        device._obj.value = ordinal

    def _cuDeviceGetName(self, text: Any, size: int, device: Any) -> None:
        assert device.value == 0
        text.value = self.record.gpu.encode()[: size - 1]

    def _cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> None:
        value._obj.value = self.record.sm[(75, 76).index(attribute)]

    def _cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> None:
        context._obj.value = CONTEXT

    def _cuCtxSetCurrent(self, context: Any) -> None:
        assert context.value == CONTEXT
        self.record.threads.add(threading.get_ident())

    def _cuStreamCreate(self, stream: Any, flags: int) -> None:
        stream._obj.value = STREAM

    def _cuStreamSynchronize(self, stream: int) -> None:
        assert stream == STREAM
        while self.record.queue:
            self.record.queue.pop(0)()

    def _cuMemAlloc(self, address: Any, size: int) -> None:
        block = ctypes.create_string_buffer(size)
        address._obj.value = ctypes.addressof(block)
        self.record.memory[address._obj.value] = block

    def _cuMemFree(self, address: int) -> int | None:
        return None if self.record.memory.pop(address, None) is not None else INVALID_VALUE

    def _cuMemcpyHtoDAsync(self, target: int, source: int, size: int, stream: int) -> int | None:
        return self._copy(target, target, source, size)

    def _cuMemcpyDtoHAsync(self, target: int, source: int, size: int, stream: int) -> int | None:
        return self._copy(source, target, source, size)

    def _copy(self, on_device: int, target: int, source: int, size: int) -> int | None:
        """Enqueue a copy within the memory of the device."""
        if on_device not in self.record.memory or size > len(self.record.memory[on_device]):
            return INVALID_VALUE

        def move() -> None:
            ctypes.memmove(target, source, size)

        self.record.queue.append(move)
        return None

    def _cuGetErrorString(self, code: int, text: Any) -> None:
        text._obj.value = f"error {code}".encode()


class _Config:
    def __init__(self) -> None:
        self.flags = {"TF32"}
        self.profiles: list[_Profile] = []
        self.workspace = 0

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        assert pool == "workspace"
        self.workspace = size

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def add_optimization_profile(self, profile: "_Profile") -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1


class _Profile:
    def __init__(self) -> None:
        self.shapes: tuple[tuple[int, ...], ...] = ()

    def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
        assert name == "bands"
        assert all(a <= b <= c for a, b, c in zip(least, usual, most, strict=True))
        self.shapes = (tuple(least), tuple(usual), tuple(most))


class _Engine:
    def __init__(self, record: StandIn, facts: dict[str, Any], model: bytes) -> None:
        self.record, self.facts = record, facts
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def get_tensor_dtype(self, name: str) -> str:
        assert name in {"bands", "embedding"}
        return "float32"

    def create_execution_context(self) -> "_Context":
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.engine = engine
        self.profile = 0
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        assert stream == STREAM
        self.profile = index
        return index < len(self.engine.facts["profiles"])

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.engine.record.calls.append(f"set_input_shape {self.profile} {tuple(shape)}")
        least, _, most = self.engine.facts["profiles"][self.profile]
        self.shape = tuple(shape)
        return all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return address in self.engine.record.memory

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.shape[0], int(self.engine.session.get_outputs()[0].shape[1]))

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == STREAM
        self.engine.record.calls.append("execute_async_v3")
        shape, addresses = self.shape, dict(self.addresses)
        self.engine.record.queue.append(lambda: self._compute(shape, addresses))
        return True

    def _compute(self, shape: tuple[int, ...], addresses: dict[str, int]) -> None:
        """Read the input from the device, compute, write the output there."""
        count = int(np.prod(shape))
        source = (ctypes.c_float * count).from_address(addresses["bands"])
        (found,) = self.engine.session.run(None, {"bands": np.array(source, np.float32).reshape(shape)})
        if self.engine.facts["half"]:
            found = found.astype(np.float16).astype(np.float32)
        assert found.nbytes <= len(self.engine.record.memory[addresses["embedding"]])
        ctypes.memmove(addresses["embedding"], np.ascontiguousarray(found).ctypes.data, found.nbytes)


def _tensorrt(record: StandIn) -> types.ModuleType:
    """Return the module `tensorrt`."""
    module = types.ModuleType("tensorrt")
    module.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)
    names: dict[str, Any] = {
        "__version__": record.version,
        "Logger": type("Logger", (), {"ERROR": 1, "__init__": lambda self, severity: None}),
        "NetworkDefinitionCreationFlag": enum.IntEnum(
            "NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
        ),
        "BuilderFlag": types.SimpleNamespace(TF32="TF32", **({"FP16": "FP16"} if record.version < "11" else {})),
        "MemoryPoolType": types.SimpleNamespace(WORKSPACE="workspace"),
        "nptype": lambda kind: {"float32": np.float32}[kind],
        "Builder": lambda logger: _builder(record),
        "OnnxParser": lambda network, logger: _parser(network),
        "Runtime": lambda logger: types.SimpleNamespace(deserialize_cuda_engine=lambda data: _load(record, data)),
    }
    vars(module).update(names)
    return module


def _parser(network: types.SimpleNamespace) -> types.SimpleNamespace:
    """Return a parser that reads ONNX files, but no dynamic int8."""
    parser = types.SimpleNamespace(num_errors=0)

    def parse(model: bytes) -> bool:
        parser.num_errors = int(b"DynamicQuantizeLinear" in model)  # in a branch of an If, too
        network.model = model
        return not parser.num_errors

    parser.parse = parse
    parser.get_error = lambda index: types.SimpleNamespace(desc=lambda: "DynamicQuantizeLinear is not supported")
    return parser


def _builder(record: StandIn) -> types.SimpleNamespace:
    """Return a builder."""

    def build(network: types.SimpleNamespace, config: _Config) -> bytes:
        assert network.model is not None
        assert config.workspace > 0
        typed = bool(network.flags & 1 << 1) or record.version >= "11"
        assert not (typed and "FP16" in config.flags), "a strongly typed network takes no flags of precision"
        facts = {
            "version": record.version,
            "device": [record.gpu, *record.sm],
            "half": "FP16" in config.flags,
            "tf32": "TF32" in config.flags,
            "typed": typed,
            "profiles": [profile.shapes for profile in config.profiles],
        }
        record.builds.append(facts)
        if record.builds_file is not None:
            descriptor = os.open(record.builds_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(descriptor, b".")
            os.close(descriptor)
        return MAGIC + json.dumps(facts).encode() + b"\n" + bytes(network.model)

    return types.SimpleNamespace(
        create_network=lambda flags: types.SimpleNamespace(flags=flags, model=None),
        create_builder_config=_Config,
        create_optimization_profile=_Profile,
        build_serialized_network=build,
    )


def _load(record: StandIn, data: bytes) -> _Engine | None:
    """Load an engine that was built by this version on this GPU; None for anything else, as TensorRT does."""
    if not data.startswith(MAGIC):
        return None
    header, _, model = data[len(MAGIC) :].partition(b"\n")
    facts = json.loads(header)
    if (facts["version"], facts["device"]) != (record.version, [record.gpu, *record.sm]):
        return None
    return _Engine(record, facts, model)
