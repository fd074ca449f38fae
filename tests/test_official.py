"""The reference code path of the benchmark computes the same embeddings as ours, so that only time differs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import micro
import numpy as np
import pytest

from fisher_bench.speed import latency
from fisher_bench.speed.gateway_cost import cost_per_second, noise_bank
from fisher_bench.speed.official import embed_officially
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import Grid, pieces_of
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.ort import OrtEncoder
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import embed_window
from fisher_export.pipeline import export
from fisher_train.checkpoint import build_encoder, load_checkpoint


class Counting:
    """An encoder that counts the pieces it embeds."""

    def __init__(self, encoder: Encoder) -> None:
        self.bundle, self.provider, self.min_frames = encoder.bundle, encoder.provider, encoder.min_frames
        self.name, self.sha256 = encoder.name, encoder.sha256
        self.call_tokens, self.shares_calls = encoder.call_tokens, encoder.shares_calls
        self._encoder = encoder
        self.pieces = 0

    def embed(self, pieces: Sequence[FloatArray]) -> list[FloatArray]:
        """Embed pieces."""
        self.pieces += len(pieces)
        return self._encoder.embed(pieces)


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
    exported = OrtEncoder(load_bundle(bundle_path))
    encoder = build_encoder(micro.micro_checkpoint())
    front_end = FrontEnd(band_width=50, top_band=top_band, amplitude=amplitude)
    wave = np.random.default_rng(0).standard_normal(11 * rate_hz if rate_hz < 6000 else rate_hz).astype(np.float32)
    found = embed_officially(encoder, front_end, wave, rate_hz)
    assert found.shape == (front_end.n_bands(rate_hz), 32)
    (ours,) = exported.embed([front_end.sub_bands(wave, rate_hz)])
    np.testing.assert_allclose(found, ours, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("seconds", [0.5, 0.96, 2.0, 11.0])
@pytest.mark.parametrize("rule", ["grid", "spread"])
def test_official_path_equals_ours_in_pieces(bundle_path: Path, seconds: float, rule: Any) -> None:
    """Pieces by either rule, one that is too short and more than the longest window: the two paths agree."""
    exported = OrtEncoder(load_bundle(bundle_path))
    encoder = build_encoder(micro.micro_checkpoint())
    front_end = replace(micro.FRONT_END, piece_frames=48, piece_rule=rule)
    wave = np.random.default_rng(0).standard_normal(round(seconds * 8000)).astype(np.float32)
    wave[: len(wave) // 2] *= 4
    found = embed_officially(encoder, front_end, wave, 8000)
    ours = embed_window(exported, front_end, pieces_of(front_end, wave, 8000))
    np.testing.assert_allclose(found, ours, atol=TOLERANCE, rtol=0)


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


def test_measure_counts_all_that_a_gateway_does(bundle_path: Path) -> None:
    """A second of signal costs something in every part, with the window and hop that the grid makes of those named."""
    found = latency.measure(str(bundle_path), Fraction(15_625, 4), 1.0, hop_s=0.25)
    assert (found.rate_hz, found.official_ms) == (3906.25, None)
    assert found.window_s == pytest.approx(100 * 39 / 3906.25)
    assert found.hop_s == pytest.approx(25 * 39 / 3906.25)
    assert set(found.parts_ms_per_s) == {"stream", "health", "measures", "views", "encoder", "join", "judge"}
    assert min(found.parts_ms_per_s.values()) > 0
    assert found.cpu_ms_per_s > 0
    whole = json.loads(json.dumps(asdict(found)))
    assert whole["parts_ms_per_s"] == found.parts_ms_per_s


def test_cost_follows_the_grid(encoder: Encoder) -> None:
    """The measured channel embeds every piece of its grid once, and judges a window every hop."""
    grid = Grid(16, 16, 3, 2, 0.48, 0.32)
    counting = Counting(encoder)
    found = cost_per_second(counting, grid, 2000)
    run_s = 1.8 + 7 * 4.0
    assert counting.pieces == pytest.approx(run_s / 0.16 + 7, abs=1)
    assert found.whole > 0
    assert noise_bank(2, 5).vectors.shape == (1000, 2, 5)


def test_measure_without_weights_claims_no_agreement(bundle_path: Path) -> None:
    """Random weights tell the time only: no difference is reported, and none of the comparison without being asked."""
    found = latency.measure(str(bundle_path), 8000, 0.5, against_official=True)
    assert found.official_ms is not None
    assert found.official_difference is None
    alone = latency.measure(str(bundle_path), 8000, 0.5)
    assert (alone.official_ms, alone.ratio, alone.official_difference) == (None, None, None)
