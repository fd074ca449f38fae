"""Speed of the front-end, against a loop over frames, torch.stft and windows computed from scratch.

    pytest bench/bench_frontend.py

Seconds depend on the machine and are only shown; what is asserted are ratios.
"""

from typing import Any

import numpy as np
import pytest
import torch

from fisher_bench.speed.pairs import cpu_ratio
from fisher_edge.dsp.blocks import Block, FloatArray
from fisher_edge.dsp.frontend import LOG_FLOOR, FrontEnd
from fisher_edge.dsp.grid import grid_of
from fisher_edge.dsp.stream import PieceStream

FRONT_END = FrontEnd()
SECONDS = 10.24


def noise(rate_hz: int, seconds: float = SECONDS) -> FloatArray:
    """White noise."""
    return np.random.default_rng(0).standard_normal(round(seconds * rate_hz)).astype(np.float32)


def frame_by_frame(wave: FloatArray, rate_hz: int) -> FloatArray:
    """Compute the bands as the formula reads: one frame at a time."""
    n_fft, hop = FRONT_END.n_fft(rate_hz), FRONT_END.hop(rate_hz)
    centred = wave - wave.mean(dtype=np.float64)
    rows = []
    for start in range(0, len(wave) - n_fft + 1, hop):
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
        amplitude = np.abs(np.fft.rfft(centred[start : start + n_fft] * window))
        rows.append((np.log(amplitude + LOG_FLOOR) - FRONT_END.mean) / (2 * FRONT_END.std))
    return cut(np.stack(rows), rate_hz)


def with_torch(wave: FloatArray, rate_hz: int) -> FloatArray:
    """Compute the bands with torch.stft in float32."""
    signal = torch.from_numpy(wave)
    n_fft = FRONT_END.n_fft(rate_hz)
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(
        signal - signal.mean(), n_fft, FRONT_END.hop(rate_hz), window=window, center=False, return_complex=True
    )
    spec = (torch.log(spectrum.abs() + LOG_FLOOR).T - FRONT_END.mean) / (2 * FRONT_END.std)
    return cut(spec.numpy(), rate_hz)


def cut(spec: Any, rate_hz: int) -> FloatArray:
    """Cut a spectrum (frames, bins) into bands."""
    bands = FRONT_END.n_bands(rate_hz)
    used = spec[:, : bands * 100].astype(np.float32)
    return np.ascontiguousarray(used.reshape(len(spec), bands, 100).transpose(1, 0, 2))


@pytest.mark.parametrize("rate_hz", [8000, 48_000])
def test_window_against_a_loop_over_frames(benchmark: Any, rate_hz: int) -> None:
    """A window takes less CPU time than one frame at a time, and gives the same bands."""
    wave = noise(rate_hz)
    np.testing.assert_allclose(FRONT_END.sub_bands(wave, rate_hz), frame_by_frame(wave, rate_hz), atol=1e-4, rtol=0)
    ratio = cpu_ratio(lambda: frame_by_frame(wave, rate_hz), lambda: FRONT_END.sub_bands(wave, rate_hz))
    benchmark.pedantic(FRONT_END.sub_bands, (wave, rate_hz), rounds=5)
    benchmark.extra_info["a loop over frames takes"] = f"{ratio:.2f} times as long"
    print(f"\n{rate_hz} Hz: a loop over frames takes {ratio:.2f} times as long")
    assert ratio > 1.5


@pytest.mark.parametrize("rate_hz", [8000, 48_000])
def test_window_against_torch(benchmark: Any, rate_hz: int) -> None:
    """A window in float64, without PyTorch, costs about what torch.stft costs in float32."""
    wave = noise(rate_hz)
    torch.set_num_threads(1)
    ratio = cpu_ratio(lambda: with_torch(wave, rate_hz), lambda: FRONT_END.sub_bands(wave, rate_hz))
    benchmark.pedantic(FRONT_END.sub_bands, (wave, rate_hz), rounds=5)
    benchmark.extra_info["torch.stft takes"] = f"{ratio:.2f} times as long"
    print(f"\n{rate_hz} Hz: torch.stft takes {ratio:.2f} times as long")
    assert ratio > 0.3


def test_stream_against_windows_afresh(benchmark: Any) -> None:
    """A stream transforms each frame of overlapping windows once: cheaper than each window from its samples."""
    rate_hz, window_frames, hop_frames = 16_000, 1024, 100
    grid = grid_of(FRONT_END, 10.24, 1.0, rate_hz)
    wave = noise(rate_hz, 30)
    length, step = FRONT_END.n_samples(window_frames, rate_hz), hop_frames * FRONT_END.hop(rate_hz)
    starts = range(0, len(wave) - length + 1, step)

    def stream() -> int:
        found = PieceStream(FRONT_END, rate_hz, grid)
        return sum(len(found.push(Block(wave[i : i + 1600], rate_hz, i, 0.0))) for i in range(0, len(wave), 1600))

    def afresh() -> int:
        return len([FRONT_END.sub_bands(wave[start : start + length], rate_hz) for start in starts])

    assert stream() == afresh() == 20
    ratio = cpu_ratio(afresh, stream, pairs=5)
    benchmark.pedantic(stream, rounds=3)
    benchmark.extra_info["windows afresh take"] = f"{ratio:.2f} times as long"
    print(f"\nwindows computed afresh take {ratio:.2f} times as long as the stream's")
    assert ratio > 1.1
