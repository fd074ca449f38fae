"""The dozen calls of the CUDA driver that an engine needs: a device, a stream, memory on the device, copies.

The driver's own library is used, because it comes with every driver and its functions do not change; TensorRT works in
the same context. See `Device`.
"""

import ctypes
from collections.abc import Callable
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import ProviderError

__all__ = ["Device", "load_driver"]

DRIVER = "libcuda.so.1"
# Numbers of CUdevice_attribute.
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
NAME_BYTES = 256
NON_BLOCKING = 1
# Without these, ctypes passes pointers and sizes as 32-bit numbers.
ARGUMENTS: dict[str, list[Any]] = {
    "cuCtxSetCurrent": [c_void_p],
    "cuStreamCreate": [c_void_p, c_uint],
    "cuStreamSynchronize": [c_void_p],
    "cuMemAlloc_v2": [c_void_p, c_size_t],
    "cuMemFree_v2": [c_uint64],
    "cuMemcpyHtoDAsync_v2": [c_uint64, c_void_p, c_size_t, c_void_p],
    "cuMemcpyDtoHAsync_v2": [c_void_p, c_uint64, c_size_t, c_void_p],
}


def load_driver() -> Any:
    """Load the driver's library; ProviderError where there is none."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError as error:
        raise ProviderError(
            f"the CUDA driver cannot be loaded ({error}); install the driver of the GPU, or choose another provider"
        ) from error
    for name, types in ARGUMENTS.items():
        getattr(driver, name).argtypes = types
    return driver


class Device:
    """The first GPU that CUDA shows: `name`, `sm` (compute capability such as "8.7"), and one stream on it.

    May be used by several threads, one at a time. Raises ProviderError when a call fails.
    """

    def __init__(self) -> None:
        self._driver = load_driver()
        self._call("cuInit", 0)
        number = c_int()
        self._call("cuDeviceGet", byref(number), 0)
        text = ctypes.create_string_buffer(NAME_BYTES)
        self._call("cuDeviceGetName", text, NAME_BYTES, number)
        self.name = text.value.decode(errors="replace")
        self.sm = f"{self._attribute(number, CAPABILITY_MAJOR)}.{self._attribute(number, CAPABILITY_MINOR)}"
        self._context = c_void_p()
        self._call("cuDevicePrimaryCtxRetain", byref(self._context), number)
        self.use()
        stream = c_void_p()
        self._call("cuStreamCreate", byref(stream), NON_BLOCKING)
        self.stream = stream.value or 0

    def use(self) -> None:
        """Make this device that of the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, n_bytes: int) -> int:
        """Return the address of new memory on the device."""
        address = c_uint64()
        self._call("cuMemAlloc_v2", byref(address), n_bytes)
        return address.value

    def free(self, address: int) -> None:
        """Give memory back."""
        self._call("cuMemFree_v2", address)

    def upload(self, values: FloatArray, address: int) -> None:
        """Start to copy a contiguous array to the device."""
        self._call("cuMemcpyHtoDAsync_v2", address, values.ctypes.data, values.nbytes, self.stream)

    def download(self, address: int, shape: tuple[int, ...], dtype: Any) -> FloatArray:
        """Copy an array from the device, once the stream has done all that was started before."""
        values = np.empty(shape, dtype)
        self._call("cuMemcpyDtoHAsync_v2", values.ctypes.data, address, values.nbytes, self.stream)
        self._call("cuStreamSynchronize", self.stream)
        return values

    def _attribute(self, number: c_int, attribute: int) -> int:
        value = c_int()
        self._call("cuDeviceGetAttribute", byref(value), attribute, number)
        return value.value

    def _call(self, name: str, *arguments: Any) -> None:
        """Call the driver; its functions return 0 when all is well."""
        function: Callable[..., int] = getattr(self._driver, name)
        code = function(*arguments)
        if code:
            text = c_char_p()
            self._driver.cuGetErrorString(code, byref(text))
            what = (text.value or b"unknown").decode(errors="replace")
            raise ProviderError(
                f"CUDA: {name} failed with {code} ({what}); check the driver, or choose another provider"
            )
