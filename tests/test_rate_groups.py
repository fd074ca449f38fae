"""Rates and batches: every rate drawn is allowed, and a batch is the same however it is made."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.errors import BadInputError, UsageError
from fisher_train.encoder import PRESETS
from fisher_train.recordings.batches import Batch, BatchPlan, RecordingBatches, loader
from fisher_train.recordings.find import Corpus, find
from fisher_train.recordings.recording import Recording
from fisher_train.recordings.sampling import RateGroups, base_frequency_hz, harmonics_hz

NANO = FrontEnd(band_width=50, top_band="pad", amplitude="standardise")
TINY = FrontEnd(band_width=100)
RATES = (1000, 1500, 8000, 48_828, 97_656)
PLAN = BatchPlan(3, NANO, PRESETS["nano"], signals=4, frames=64, max_cloned_bands=16)


def recording(rate_hz: int, seconds: float = 10.0) -> Recording:
    """Return a recording that nobody reads."""
    return Recording(f"{rate_hz}", "d", "u", 0, rate_hz, int(rate_hz * seconds), 1.0, Path("none"), "array")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Return recordings of slow, odd and high rates, one of two channels, one shorter than a window."""
    for place, rate_hz in enumerate(RATES):
        noise = np.random.default_rng(place).normal(0, 0.1, (int(rate_hz * 0.9), 1 + (rate_hz == 48_828)))
        soundfile.write(tmp_path / f"r{rate_hz}.wav", noise, rate_hz, subtype="PCM_16")
    soundfile.write(tmp_path / "short.wav", np.random.default_rng(9).normal(0, 0.1, 3000), 8000)
    return find([tmp_path])


def test_harmonics_are_multiples_of_the_width_of_a_band() -> None:
    """4 kHz for bands of 100 bins, 2 kHz for 50, up to 32 kHz."""
    assert base_frequency_hz(TINY) == 4000
    assert harmonics_hz(TINY) == [4000, 8000, 12_000, 16_000, 20_000, 24_000, 28_000, 32_000]
    assert harmonics_hz(NANO, 7000) == [2000, 4000, 6000]


def test_every_rate_drawn_is_at_most_that_of_its_recordings() -> None:
    """Batches are of harmonics, each as likely as any other, or of slow recordings at their own rate."""
    groups = RateGroups([recording(rate) for rate in RATES], NANO)
    rng = np.random.default_rng(0)
    counts: dict[int, int] = {}
    for _ in range(2000):
        rate_hz = groups.draw_rate(rng)
        counts[rate_hz] = counts.get(rate_hz, 0) + 1
        source_hz = groups.draw_recording(rng, rate_hz).rate_hz
        assert source_hz >= rate_hz
        assert rate_hz in harmonics_hz(NANO) or source_hz == rate_hz < 2000
    slow = counts.pop(1000) + counts.pop(1500)
    assert sorted(counts) == harmonics_hz(NANO)
    assert min(*counts.values(), slow) > 2000 / 17 * 0.6
    assert max(*counts.values(), slow) < 2000 / 17 * 1.4


def test_no_rate_above_the_fastest_recording() -> None:
    """A corpus of slower recordings has fewer harmonics."""
    groups = RateGroups([recording(25_600), recording(12_000)], TINY)
    assert groups.rates_hz == [4000, 8000, 12_000, 16_000, 20_000, 24_000]
    assert {groups.draw_recording(np.random.default_rng(seed), 16_000).rate_hz for seed in range(20)} == {25_600}
    assert {groups.draw_recording(np.random.default_rng(seed), 12_000).rate_hz for seed in range(20)} == {
        25_600,
        12_000,
    }


def test_recordings_are_drawn_in_proportion_to_their_length() -> None:
    """A recording nine times as long is drawn nine times as often."""
    groups = RateGroups([recording(8000, 9.0), recording(8000, 81.0)], TINY)
    rng = np.random.default_rng(1)
    long = sum(groups.draw_recording(rng, 8000).seconds == 81 for _ in range(1000))
    assert 860 < long < 940


def test_nothing_to_draw_from_is_one_line() -> None:
    """Too short recordings and a limit below the base frequency are refused."""
    with pytest.raises(BadInputError, match="none of 1 recordings spans 16 frames"):
        RateGroups([recording(8000, 0.1)], TINY)
    with pytest.raises(UsageError, match="highest_hz=3000 is below the base frequency of 4000 Hz"):
        RateGroups([recording(8000)], TINY, 3000)


def test_batch_has_bands_masks_and_the_frames_that_are_filled(corpus: Corpus) -> None:
    """Shapes and places belong together; a short recording says where its zeros begin."""
    seen = set()
    for batch in take(loader(corpus, PLAN, workers=0), 30):
        n_bands = NANO.n_bands(batch.rate_hz)
        n = 4 * n_bands
        assert batch.bands.shape == (n, 64, 50)
        assert batch.bands.dtype == torch.float32
        assert batch.band_index.tolist() == list(range(n_bands)) * 4
        assert batch.kept.shape == (n, 16 // n_bands, int(4 * 3 * 0.2))
        assert len(set(batch.seeds.tolist())) == n
        for band, filled in zip(batch.bands, batch.filled.tolist(), strict=True):
            assert band[:filled].abs().max() > 0
            assert not band[filled:].any()
        seen |= {(batch.rate_hz, filled) for filled in batch.filled.tolist()}
    assert len({rate for rate, _ in seen}) > 8
    assert min(filled for _, filled in seen) < 64
    assert max(filled for _, filled in seen) == 64


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_the_same_batches_in_the_same_order(corpus: Corpus, workers: int) -> None:
    """One process or several: the same batches, from any step on."""
    alone = take(loader(corpus, PLAN, workers=0), 9)
    assert [batch.step for batch in alone] == list(range(9))
    assert_same(take(loader(corpus, PLAN, first_step=4, workers=workers), 5), alone[4:])


def test_ranks_divide_the_batch_of_one_process(corpus: Corpus) -> None:
    """Two processes see together what one would have seen, masks and seeds too."""
    for step in range(6):
        groups = RateGroups(corpus.recordings, NANO)
        whole = RecordingBatches(PLAN, groups).batch(step)
        halves = [RecordingBatches(PLAN, groups, rank=rank, world=2).batch(step) for rank in (0, 1)]
        assert halves[0].rate_hz == halves[1].rate_hz == whole.rate_hz
        for name in ("bands", "kept", "seeds", "band_index", "filled"):
            both = torch.cat([getattr(half, name) for half in halves])
            assert torch.equal(both, getattr(whole, name)), name
    with pytest.raises(UsageError, match=r"4 signals .* among 3 processes"):
        loader(corpus, PLAN, workers=0, rank=0, world=3)


def test_seeds_and_steps_give_other_batches(corpus: Corpus) -> None:
    """No two steps or seeds repeat a signal."""
    first = take(loader(corpus, PLAN, workers=0), 5)
    other = take(loader(corpus, BatchPlan(4, *list(PLAN.__dict__.values())[1:]), workers=0), 5)
    seeds = torch.cat([batch.seeds for batch in first + other]).tolist()
    assert len(set(seeds)) == len(seeds)


def test_recording_that_vanishes_is_one_line_from_a_worker(corpus: Corpus) -> None:
    """An error in a worker is raised with its own words and without the worker's traceback."""
    batches = loader(corpus, PLAN, workers=1)
    for path in {one.path for one in corpus.recordings}:
        path.unlink()
    with pytest.raises(BadInputError, match="cannot be read as a recording") as caught:
        take(batches, 3)
    assert len(str(caught.value).splitlines()) == 1


def take(batches: object, count: int) -> list[Batch]:
    """Return the next batches."""
    assert hasattr(batches, "__next__")
    return [next(batches) for _ in range(count)]


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    """Compare batches, every field."""
    assert len(one) == len(other) > 0
    for left, right in zip(one, other, strict=True):
        for name, value in left._asdict().items():
            wanted = getattr(right, name)
            assert torch.equal(value, wanted) if isinstance(value, torch.Tensor) else value == wanted, name
