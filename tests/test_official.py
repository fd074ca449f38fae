"""The reference code path of the benchmark computes the same embeddings as ours, so that only time differs."""

from pathlib import Path
from typing import Any

import micro
import numpy as np
import pytest

from fisher_bench import latency
from fisher_bench.official import embed_officially
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.ort import EncoderSession
from fisher_export.pipeline import export
from fisher_train.checkpoint import build_encoder, load_checkpoint

DATA = Path(__file__).parent / "data"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def checkpoint_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a micro checkpoint."""
    return micro.save_micro(tmp_path_factory.mktemp("checkpoint") / "micro")


@pytest.fixture(scope="module")
def bundle_path(checkpoint_path: Path) -> Path:
    """Return the folder of its bundle."""
    return export(checkpoint_path, checkpoint_path.parent / "out", "fp32", micro.signals()).path


@pytest.mark.parametrize(
    ("checkpoint", "prefix"),
    [("official_micro_band100_trimmed.pt", "band100"), ("official_micro_band50_time.pt", "band50_time")],
)
def test_official_path_agrees_with_the_reference(checkpoint: str, prefix: str) -> None:
    """What the benchmark calls official gives the authors' embeddings."""
    case = np.load(DATA / "official_micro_case01.npz")
    encoder = build_encoder(load_checkpoint(DATA / checkpoint))
    front_end = FrontEnd(band_width=encoder.config.band_width)
    found = embed_officially(encoder, front_end, case["wave"], int(case["rate_hz"]))
    np.testing.assert_allclose(found.ravel(), case[f"{prefix}_embedding"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("rate_hz", [1000, 5120, 12_000, 26_667, 44_100])
@pytest.mark.parametrize("top_band", ["drop", "pad", "overlap"])
@pytest.mark.parametrize("amplitude", ["raw", "standardise"])
def test_official_path_equals_ours(bundle_path: Path, rate_hz: int, top_band: Any, amplitude: Any) -> None:
    """At every rate and with every form of front-end the two paths agree, on more than 1024 frames too."""
    session = EncoderSession(load_bundle(bundle_path))
    encoder = build_encoder(micro.micro_checkpoint())
    front_end = FrontEnd(band_width=50, top_band=top_band, amplitude=amplitude)
    wave = np.random.default_rng(0).standard_normal(11 * rate_hz if rate_hz < 6000 else rate_hz).astype(np.float32)
    found = embed_officially(encoder, front_end, wave, rate_hz)
    assert found.shape == (front_end.n_bands(rate_hz), 32)
    np.testing.assert_allclose(found, session.embed(front_end.sub_bands(wave, rate_hz)), atol=TOLERANCE, rtol=0)


def test_measure_compares_the_same_computation(bundle_path: Path, checkpoint_path: Path) -> None:
    """With the checkpoint the two embeddings agree; every time is positive and the parts fit the whole."""
    found = latency.measure(str(bundle_path), 8000, 1.0, against_official=True, checkpoint=checkpoint_path)
    assert (found.bundle, found.rate_hz, found.seconds, found.bands) == ("micro-fp32", 8000, 1.0, 2)
    assert found.official_difference is not None
    assert found.official_difference < TOLERANCE
    assert found.official_ms is not None
    assert found.ratio is not None
    assert min(found.front_end_ms, found.encoder_ms, found.knn_ms, found.total_ms, found.official_ms, found.ratio) > 0
    assert found.peak_memory_mb > 10


def test_measure_without_weights_claims_no_agreement(bundle_path: Path) -> None:
    """Random weights tell the time only: no difference is reported, and none of the comparison without being asked."""
    found = latency.measure(str(bundle_path), 8000, 0.5, against_official=True)
    assert found.official_ms is not None
    assert found.official_difference is None
    alone = latency.measure(str(bundle_path), 8000, 0.5)
    assert (alone.official_ms, alone.ratio, alone.official_difference) == (None, None, None)
