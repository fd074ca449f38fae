"""The bundle: a folder with the encoder, its manifest and its self-test, checked before anything is run.

Start at `load_bundle`. Nothing here unpickles: the manifest is JSON, the self-test plain arrays.
"""

import hashlib
import io
import json
import stat
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.encoder.onnx_scan import has_external_data
from fisher_edge.errors import BadArtifactError

__all__ = ["BUNDLE_SCHEMA", "DEFAULT_BUNDLE", "Bundle", "SelfTest", "Variant", "first_line", "load_bundle", "sha256"]

BUNDLE_SCHEMA = "fisher-edge/bundle/1"
DEFAULT_BUNDLE = Path(__file__).parents[1] / "bundles" / "default"
ENCODER_NAME = "encoder.onnx"
MANIFEST_NAME = "manifest.json"
SELFTEST_NAME = "selftest.npz"
# The files of every variant that this release runs. A manifest may name others, which are left alone.
VARIANT_FILES = {
    "openvino-int8": ("openvino-int8.xml", "openvino-int8.bin"),
    "s8s8": ("s8s8.onnx",),
    "tensorrt-fp16": ("tensorrt-fp16.onnx",),
    "tensorrt-int8": ("tensorrt-int8.onnx",),
}
# By file; the self-test's also caps what it unpacks to.
MAX_BYTES = {ENCODER_NAME: 512 * 2**20, MANIFEST_NAME: 2**20, SELFTEST_NAME: 64 * 2**20} | {
    name: 512 * 2**20 for names in VARIANT_FILES.values() for name in names
}


@dataclass(frozen=True, eq=False)
class SelfTest:
    """Input windows `bands` (n, frames, band_width) and the float32 embeddings (n, dim) they must give.

    `min_cosine` is the smallest allowed cosine, with the mean embedding removed, of any of them.
    """

    bands: FloatArray
    embeddings: FloatArray
    min_cosine: float


@dataclass(frozen=True, eq=False)
class Variant:
    """The weights of a bundle in another form, for one runtime: `files` holds the SHA-256 of each by its name."""

    folder: Path
    name: str
    files: dict[str, str]

    def read(self) -> list[bytes]:
        """Return the contents of its files, in the order of VARIANT_FILES; BadArtifactError where one was altered."""
        return [_read(self.folder, name, self.files[name]) for name in VARIANT_FILES[self.name]]


@dataclass(frozen=True, eq=False)
class Bundle:
    """A checked bundle: what the encoder is, how to feed it, and its model file in memory."""

    path: Path
    name: str
    version: str
    precision: str
    sha256: str
    """Of the model file: embeddings of different files must not be compared."""
    dim: int
    front_end: FrontEnd
    model: bytes = field(repr=False)
    selftest: SelfTest = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)
    variants: dict[str, Variant] = field(default_factory=dict, repr=False)
    """Other forms of the same weights that this release can run, by name."""


def sha256(data: bytes) -> str:
    """Return the hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


def load_bundle(path: str | Path = "default") -> Bundle:
    """Read and check a bundle folder; "default" is the one that ships with the package.

    Raises BadArtifactError with one line when a file is missing, too large, altered or malformed.
    """
    folder = DEFAULT_BUNDLE if str(path) == "default" else Path(path)
    if not folder.is_dir():
        raise BadArtifactError(f"no bundle folder at {folder}; give a folder made by: fisher-edge export")
    try:
        manifest = json.loads(_read(folder, MANIFEST_NAME, None))
        if manifest["schema"] != BUNDLE_SCHEMA:
            raise BadArtifactError(
                f"{folder / MANIFEST_NAME}: schema {manifest['schema']!r} is not {BUNDLE_SCHEMA!r}; export it again"
            )
        model = _read(folder, ENCODER_NAME, str(manifest["files"][ENCODER_NAME]))
        _check_single_file(folder / ENCODER_NAME, model)
        tests = _read(folder, SELFTEST_NAME, str(manifest["files"][SELFTEST_NAME]))
        front_end = _front_end(folder / MANIFEST_NAME, manifest["front_end"])
        return Bundle(
            path=folder,
            name=str(manifest["name"]),
            version=str(manifest["version"]),
            precision=str(manifest["precision"]),
            sha256=sha256(model),
            dim=int(manifest["dim"]),
            front_end=front_end,
            model=model,
            selftest=_selftest(
                folder / SELFTEST_NAME,
                tests,
                (front_end.band_width, int(manifest["dim"])),
                float(manifest["selftest"]["min_cosine"]),
            ),
            manifest=manifest,
            variants=_variants(folder, manifest.get("variants", {})),
        )
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadArtifactError(f"{folder / MANIFEST_NAME}: {_what(error)}; export the bundle again") from error


def _what(error: Exception) -> str:
    """Say what a malformed manifest lacks."""
    return f"field {error} is missing" if isinstance(error, KeyError) else f"malformed ({first_line(error)})"


def _read(folder: Path, name: str, digest: str | None) -> bytes:
    """Read one file of the bundle within its size cap and, unless that is None, against its hash."""
    path = folder / name
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise BadArtifactError(f"{path} is not a plain file; the bundle is incomplete, copy it again")
        if info.st_size > MAX_BYTES[name]:
            raise BadArtifactError(
                f"{path} has {info.st_size} bytes, more than the {MAX_BYTES[name]} allowed; check its origin"
            )
        data = path.read_bytes()
    except OSError as error:
        raise BadArtifactError(
            f"cannot read {path}: {error.strerror}; the bundle is incomplete, copy it again"
        ) from error
    if digest is not None and sha256(data) != digest:
        raise BadArtifactError(
            f"{path} does not match the SHA-256 in {MANIFEST_NAME}: altered or cut short; copy it again"
        )
    return data


def _check_single_file(path: Path, model: bytes) -> None:
    """Refuse a model that is damaged or wants other files read."""
    try:
        external = has_external_data(model)
    except BadArtifactError as error:
        raise BadArtifactError(f"{path}: {error}") from error
    if external:
        raise BadArtifactError(f"{path} refers to external data files, which are never loaded; export it as one file")


def _variants(folder: Path, entries: Any) -> dict[str, Variant]:
    """Check the variants that this release knows; their names are fixed, so that no path comes from the manifest."""
    found = {}
    for name, names in VARIANT_FILES.items():
        if name not in entries:
            continue
        files = {str(file): str(digest) for file, digest in dict(entries[name]["files"]).items()}
        if set(files) != set(names):
            raise BadArtifactError(
                f"{folder / MANIFEST_NAME}: variant {name} names the files {', '.join(sorted(files)) or 'none'}, not "
                f"{', '.join(names)}; export the bundle again"
            )
        found[name] = Variant(folder, name, files)
        for file, data in zip(names, found[name].read(), strict=True):
            if file.endswith(".onnx"):
                _check_single_file(folder / file, data)
    return found


def _front_end(path: Path, values: Any) -> FrontEnd:
    try:
        return FrontEnd.from_dict(values)
    except BadArtifactError as error:
        raise BadArtifactError(f"{path}: {error}") from error


def _selftest(path: Path, data: bytes, widths: tuple[int, int], min_cosine: float) -> SelfTest:
    """Read the self-test arrays, refusing anything pickled; `widths` are those of a band and of its embedding."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_BYTES[SELFTEST_NAME]:
            raise ValueError(f"it unpacks to {unpacked} bytes, more than the {MAX_BYTES[SELFTEST_NAME]} allowed")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            bands = np.asarray(arrays["bands"], np.float32)
            embeddings = np.asarray(arrays["embeddings"], np.float32)
    except Exception as error:  # hostile archives raise whatever zlib, zipfile and the header's parser like
        raise BadArtifactError(f"{path} is not a self-test ({first_line(error)}); export the bundle again") from error
    if (
        bands.ndim != 3
        or embeddings.ndim != 2
        or len(bands) != len(embeddings)
        or len(bands) < 2
        or (bands.shape[2], embeddings.shape[1]) != widths
    ):
        raise BadArtifactError(
            f"{path} holds shapes {bands.shape} and {embeddings.shape}, which do not fit bands of {widths[0]} bins and "
            f"embeddings of {widths[1]} numbers; export the bundle again"
        )
    if not -1 <= min_cosine <= 1:
        raise BadArtifactError(f"{path}: min_cosine={min_cosine:g} is no cosine; export the bundle again")
    return SelfTest(bands, embeddings, min_cosine)


def first_line(error: Exception) -> str:
    """First line of an error's text, or its type where it has none."""
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__
