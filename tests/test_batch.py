"""Pieces of several channels that are read together: calls that are shared, results that are those of each alone."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from machine import RATE_HZ, machine_signal
from variants import micro_bundle

from fisher_edge.decision.judge import Unenrolled
from fisher_edge.decision.judgement import ModelName
from fisher_edge.dsp.blocks import Block, FloatArray
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.stream import PieceStream
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.ort import OrtEncoder
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import Reading, read
from fisher_edge.gateway.batch import read_together, tokens_in
from fisher_edge.gateway.monitored import Plan
from fisher_edge.gateway.reader import Cutting
from fisher_edge.gateway.work import JudgePiece, WorkQueue
from fisher_edge.gateway.worker import Worker
from fisher_edge.names import ChannelKey

A, B, C = (ChannelKey("pump", name) for name in "abc")


class Noting(OrtEncoder):
    """Notes the shape of every call."""

    calls: list[tuple[int, ...]]

    def _run(self, bands: FloatArray) -> FloatArray:
        self.calls.append(bands.shape)
        return super()._run(bands)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Noting:
    """Return an encoder in float32, whose calls may be shared."""
    Noting.calls = []
    return Noting(load_bundle(micro_bundle(tmp_path_factory.mktemp("batch"))), call_tokens=100)


def plan_of(encoder: Encoder, front_end: FrontEnd | None = None) -> Plan:
    """Return the plan of a channel that is not enrolled."""
    cutting = Cutting(front_end or encoder.bundle.front_end, 0.32, 0.16)
    return Plan(encoder, cutting, Unenrolled(ModelName("micro", "0" * 64), "nothing is enrolled"))


def pieces_of(plan: Plan, key: ChannelKey, count: int, seed: int = 0) -> list[JudgePiece]:
    """Return consecutive pieces of a channel, each of 32 frames."""
    grid = plan.cutting.grid(RATE_HZ)
    stream = PieceStream(plan.cutting.front_end, RATE_HZ, grid)
    wave = machine_signal(seed, 0.4 + 0.16 * count)
    return [JudgePiece(key, piece, grid) for piece in stream.push(Block(wave, RATE_HZ, 0, 0.0))][:count]


def alone(plan: Plan, work: JudgePiece) -> Reading:
    """Read one piece by itself."""
    (reading,) = read(plan.encoder, plan.cutting.front_end, [work.piece], views=plan.judge.views)
    return reading


def test_pieces_of_channels_share_calls_up_to_the_tokens_of_one(shared: Noting) -> None:
    """Three pieces, of 24 tokens each with a call of at most 100, make one call and are what each is alone."""
    plan = plan_of(shared)
    works = [pieces_of(plan, key, 1, seed)[0] for seed, key in enumerate((A, B, C))]
    bands, frames, width = works[0].piece.bands.shape
    assert tokens_in(works[0]) == bands * (frames // 16) * (width // 16) <= 33
    shared.calls.clear()
    found = read_together([(plan, work) for work in works])
    assert shared.calls == [(3 * bands, frames, width)]
    for work, reading in zip(works, found, strict=True):
        assert isinstance(reading, Reading)
        np.testing.assert_allclose(reading.embedding, alone(plan, work).embedding, atol=1e-5, rtol=0)
        assert reading.measures == alone(plan, work).measures


def test_dynamic_int8_keeps_a_call_for_each_piece(encoder: Encoder) -> None:
    """A model that scales its activations by the largest of a call gives to the bit what it gives alone."""
    plan = plan_of(encoder)
    works = [pieces_of(plan, key, 1, seed)[0] for seed, key in enumerate((A, B))]
    for work, reading in zip(works, read_together([(plan, work) for work in works]), strict=True):
        assert isinstance(reading, Reading)
        np.testing.assert_array_equal(reading.embedding, alone(plan, work).embedding)


def test_slow_sensor_beside_a_fast_one_is_what_it_is_alone() -> None:
    """A form that computes slow sensors in float decides that for a whole call: no call holds two pieces."""
    arm = OrtEncoder(load_bundle(), "s8s8")
    rng = np.random.default_rng(0)
    slow, fast = np.zeros((1, 96, 50), np.float32), rng.standard_normal((8, 96, 50)).astype(np.float32)
    slow[:, :, :13] = rng.standard_normal((1, 96, 13))
    alone, beside = arm.embed([slow])[0], arm.embed([slow, fast])[0]
    np.testing.assert_array_equal(alone, beside)
    mixed = arm._session.run(None, {"bands": np.concatenate([slow, fast])})[0][:1]
    assert np.abs(mixed - alone).max() > 1e-3


def test_channels_of_different_plans_are_read_apart_and_in_order(shared: Noting, encoder: Encoder) -> None:
    """Another encoder or another front-end is another call; the readings come back in the order of the pieces."""
    moved = replace(shared.bundle.front_end, mean=-2.0)
    plans = [plan_of(encoder), plan_of(shared), plan_of(shared, moved), plan_of(encoder)]
    works = [pieces_of(plan, A, 1, seed)[0] for seed, plan in enumerate(plans)]
    for plan, work, reading in zip(plans, works, read_together(list(zip(plans, works, strict=True))), strict=True):
        assert isinstance(reading, Reading)
        np.testing.assert_allclose(reading.embedding, alone(plan, work).embedding, atol=1e-5, rtol=0)


def test_piece_that_cannot_be_read_stays_with_its_channel(shared: Noting) -> None:
    """One piece of another width in the middle: its error is returned, the others are read."""
    plan = plan_of(shared)
    works = [pieces_of(plan, key, 1)[0] for key in (A, B, C)]
    works[1] = replace(works[1], piece=replace(works[1].piece, bands=np.zeros((2, 32, 7), np.float32)))
    found = read_together([(plan, work) for work in works])
    assert [isinstance(each, Reading) for each in found] == [True, False, True]
    assert "7" in str(found[1])


def test_distrusted_piece_has_its_reason(shared: Noting) -> None:
    """What the reader knows about a sensor marks its piece and no other."""
    plan = plan_of(shared)
    (first,), (second,) = pieces_of(plan, A, 1), pieces_of(plan, B, 1)
    found = read_together([(plan, replace(first, distrust="samples come at 990 Hz")), (plan, second)])
    assert [each.fault for each in found if isinstance(each, Reading)] == ["samples come at 990 Hz", None]


@dataclass
class Gathered:
    """A worker that notes what it takes together, and stops when nothing is left."""

    queue: WorkQueue
    stop: threading.Event = field(default_factory=threading.Event)
    batches: list[list[str]] = field(default_factory=list)

    def take_all(self, plans: dict[ChannelKey, Plan]) -> list[list[str]]:
        """Take everything, and return the channels of each batch."""
        channels = {key: type("Channel", (), {"plan": plan})() for key, plan in plans.items()}
        worker = Worker(self.queue, channels, None, None, None)  # type: ignore[arg-type]
        while works := worker._gather():
            self.batches.append([work.key.channel for work in works])
            for _ in works:
                self.queue.done()
        return self.batches


def filled(plans: dict[ChannelKey, Plan], counts: Sequence[int]) -> Gathered:
    """Return a queue with so many pieces of each channel."""
    gathered = Gathered(WorkQueue(list(plans)))
    for (key, plan), count in zip(plans.items(), counts, strict=True):
        for work in pieces_of(plan, key, count):
            gathered.queue.put(work, gathered.stop)
    return gathered


def test_what_waits_is_taken_up_to_the_tokens_of_a_call(shared: Noting) -> None:
    """Channels in turn, as many pieces as reach the tokens of one call; the rest does not wait for more."""
    plans = dict.fromkeys((A, B, C), plan_of(shared))
    each = tokens_in(pieces_of(plans[A], A, 1)[0])
    most = shared.call_tokens // each
    assert 1 < most < 6
    batches = filled(plans, (4, 1, 1)).take_all(plans)
    assert batches[0][:3] == ["a", "b", "c"]
    assert [len(batch) for batch in batches] == [most] * (6 // most) + ([6 % most] if 6 % most else [])


def test_encoder_that_shares_no_calls_takes_piece_by_piece(encoder: Encoder) -> None:
    """Waiting for others would only make the first result later."""
    plans = dict.fromkeys((A, B), plan_of(encoder))
    assert filled(plans, (2, 1)).take_all(plans) == [["a"], ["b"], ["a"]]


def test_nothing_is_waited_for(shared: Noting, tmp_path: Path) -> None:
    """A single piece that waits is taken at once, however many a call could hold."""
    plans = {A: plan_of(shared)}
    assert filled(plans, (1,)).take_all(plans) == [["a"]]
