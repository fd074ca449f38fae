"""The encoder in OpenVINO: equal to ONNX Runtime, quick to start again, and refused where it is not what it was."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from variants import add_variant, micro_bundle, openvino_ir

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.encoder import openvino as module
from fisher_edge.encoder.bundle import Bundle, load_bundle
from fisher_edge.encoder.forms import PLAIN
from fisher_edge.encoder.openvino import MOST_OWN, OWN_AFTER_CALLS, OpenVinoEncoder
from fisher_edge.encoder.ort import OrtEncoder
from fisher_edge.errors import BadArtifactError, MissingExtraError

pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'fisher-edge[openvino]'")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a float32 bundle with a variant for OpenVINO, which the bundle's self-test lets pass."""
    folder = tmp_path_factory.mktemp("bundle")
    path = micro_bundle(folder, selftest={"min_cosine": 0.999})
    return load_bundle(add_variant(path, "openvino-int8", openvino_ir(path, folder)))


def bands_of(rows: int, frames: int) -> FloatArray:
    """Sub-bands of noise."""
    return np.random.default_rng(0).standard_normal((rows, frames, 50)).astype(np.float32)


def test_float32_embeds_as_onnx_runtime(bundle: Bundle) -> None:
    """Shapes of all kinds, often enough that some have a model of their own, give the embeddings of ONNX Runtime."""
    ours, reference = OpenVinoEncoder(bundle), OrtEncoder(bundle)
    for _ in range(OWN_AFTER_CALLS + 1):
        for shape in ((7, 96), (1, 16), (4, 200), (2, 1024), (3, 97)):
            bands = bands_of(*shape)
            (found,), (expected,) = ours.embed([bands]), reference.embed([bands])
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    assert len(ours._own) == MOST_OWN
    assert (ours.name, ours.sha256, ours.kind) == (bundle.name, bundle.sha256, "openvino")
    assert ours.provider.startswith("openvino 2")
    assert ours.provider.endswith(" CPU")


def test_results_do_not_change_with_the_next_call(bundle: Bundle) -> None:
    """An embedding is a copy, not a view of memory that the library uses again."""
    encoder = OpenVinoEncoder(bundle)
    for _ in range(OWN_AFTER_CALLS + 1):
        (first,) = encoder.embed([bands_of(2, 64)])
        kept = first.copy()
        encoder.embed([bands_of(2, 64) * 3])
        np.testing.assert_array_equal(first, kept)


def test_one_thread_in_float32(bundle: Bundle) -> None:
    """A gateway has other work to do, and bfloat16 is another arithmetic."""
    compiled = OpenVinoEncoder(bundle)._any.get_compiled_model()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert compiled.get_property("NUM_STREAMS") == 1
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


def test_variant_is_another_model(bundle: Bundle) -> None:
    """It passes the self-test, and has a name and a hash of its own: its embeddings are not those of the model."""
    encoder = OpenVinoEncoder(bundle, "openvino-int8")
    bands = bands_of(4, 64)
    (found,), (expected,) = encoder.embed([bands]), OrtEncoder(bundle).embed([bands])
    assert 0 < np.abs(found - expected).max() < 0.05
    assert encoder.name == "micro-fp32 (openvino int8)"
    assert encoder.sha256 not in {bundle.sha256, OpenVinoEncoder(bundle).sha256}


def test_second_start_compiles_nothing(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled models are kept, those of single shapes too."""
    bands, found = bands_of(4, 64), []
    for _ in range(2):
        encoder = OpenVinoEncoder(bundle, cache_dir=tmp_path)
        found += [encoder.embed([bands])[0] for _ in range(OWN_AFTER_CALLS)]
        monkeypatch.setattr(OpenVinoEncoder, "_build", lambda *_: pytest.fail("compiled again"))
    assert len(list((tmp_path / "engines").glob("*.engine"))) == 2
    np.testing.assert_array_equal(found[-1], found[OWN_AFTER_CALLS - 1])


def test_each_form_has_its_own_compiled_model(bundle: Bundle, tmp_path: Path) -> None:
    """Kept in one folder, they are not taken for each other."""
    bands = bands_of(4, 64)
    forms = (PLAIN, "openvino-int8") * 2
    found = [OpenVinoEncoder(bundle, form, cache_dir=tmp_path).embed([bands])[0] for form in forms]
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[3])
    assert np.abs(found[0] - found[1]).max() > 0
    assert len(list((tmp_path / "engines").glob("*.engine"))) == 2


def test_damaged_compiled_model_is_made_again(bundle: Bundle, tmp_path: Path) -> None:
    """OpenVINO itself would load a model with changed weights: what is kept has a hash."""
    OpenVinoEncoder(bundle, cache_dir=tmp_path)
    (path,) = (tmp_path / "engines").glob("*.engine")
    data = path.read_bytes()
    path.write_bytes(data[:-2000] + bytes(1000) + data[-1000:])
    encoder = OpenVinoEncoder(bundle, cache_dir=tmp_path)
    assert encoder.self_test_cosine() > 0.9999
    assert bytes(1000) not in path.read_bytes()[-2000:]


def test_damaged_variant_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """Files that are no model of OpenVINO, with the right hashes, are one line with the version."""
    path = micro_bundle(tmp_path)
    broken = load_bundle(
        add_variant(path, "openvino-int8", {"openvino-int8.xml": b"<net/>", "openvino-int8.bin": b"\0"})
    )
    with pytest.raises(BadArtifactError, match=r"openvino 2.* cannot load micro-fp32 \(openvino int8\)") as caught:
        OpenVinoEncoder(broken, "openvino-int8")
    assert "\n" not in str(caught.value)


def test_without_openvino_the_extra_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what to install."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"openvino is not installed; run: pip install 'fisher-edge\[openvino"):
        OpenVinoEncoder(bundle)


def test_shapes_that_come_seldom_compile_nothing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only few shapes have models of their own, whatever comes."""
    encoder = OpenVinoEncoder(bundle)
    monkeypatch.setattr(module, "OWN_AFTER_CALLS", 2)
    for frames in range(16, 32):
        encoder.embed([bands_of(1, frames)])
    assert not encoder._own
    for frames in range(16, 32):
        encoder.embed([bands_of(1, frames)])
    assert len(encoder._own) == MOST_OWN


def test_signals_are_handled_after_encoders_have_ended_in_any_order(bundle: Bundle, tmp_path: Path) -> None:
    """Each leaves the stack on which signals are handled as it was: a process of its own survives what comes then."""
    code = (
        "import faulthandler, gc, os, signal, sys\n"
        "from pathlib import Path\n"
        "from fisher_edge.encoder.bundle import load_bundle\n"
        "from fisher_edge.encoder.openvino import OpenVinoEncoder\n"
        "faulthandler.enable()\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('handled'))\n"
        "bundle, cache = load_bundle(sys.argv[1]), Path(sys.argv[2])\n"
        "encoders = [OpenVinoEncoder(bundle, cache_dir=cache) for _ in range(3)]\n"
        "while encoders:\n"
        "    del encoders[0]\n"
        "    gc.collect()\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    command = [sys.executable, "-c", code, str(bundle.path), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
